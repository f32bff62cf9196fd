"""Break each fast path on purpose and see the laws notice: `python -m tests.mutation [WORD...]`.

Every mutant (`tests/mutants.py`) is one edit to a copy of the package; the tests that must notice run against the copy,
in a forked process that has torch and transformers imported already. Before the first mutant these tests must pass on
the copy as it is. Exit 0 when every mutant is killed, 1 when one survives, 2 when an edit no longer applies to the code
or a test is broken. For POSIX systems.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tests.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
COPIED = ("ctxpeft", "variants", "search", "tests")
OUTPUT = "output.txt"
PASSED, FAILED = 0, 1


def outcome(package: Path, tests: Sequence[str]) -> int:
    """pytest's exit code for some tests of a copy of the repository, run in a forked process."""
    child = os.fork()
    if child == 0:
        os._exit(_run(package, tests))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(package: Path, tests: Sequence[str]) -> int:
    written = os.open(package / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.chdir(package)
    sys.path[:] = [str(package), *(p for p in sys.path if p not in ("", str(ROOT)))]
    for name in [n for n in sys.modules if n.partition(".")[0] in ("tests", "ctxpeft")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    try:
        import pytest

        return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
    except BaseException:
        return 3


def survives(mutant: Mutant, package: Path) -> bool:
    """Apply the edit, run its tests, undo. Raises SystemExit(2) where its tests do not run."""
    path = package / "ctxpeft" / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code = outcome(package, mutant.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    if code not in (PASSED, FAILED):
        _refuse(package, f"mutant '{mutant.name}': its tests do not run (pytest exit code {code})")
    return code == PASSED


def stale_edits(mutants: Sequence[Mutant]) -> list[str]:
    """A sentence for every edit that does not apply to the code as it is."""
    sentences = []
    for mutant in mutants:
        path = ROOT / "ctxpeft" / mutant.file
        if not path.is_file() or mutant.old not in path.read_text(encoding="utf-8"):
            sentences.append(f"mutant '{mutant.name}': {mutant.file} no longer contains {mutant.old!r}")
    return sentences


def check_edits(mutants: Sequence[Mutant]) -> None:
    """Every edit applies to the code. Raises SystemExit(2), naming all that do not."""
    stale = stale_edits(mutants)
    if stale:
        print("\n".join(stale), file=sys.stderr)
        raise SystemExit(2)


def check_tests(mutants: Sequence[Mutant], package: Path) -> None:
    """The tests of all mutants pass on the unchanged copy. Raises SystemExit(2) where one does not."""
    for tests in dict.fromkeys(m.tests for m in mutants):
        code = outcome(package, tests)
        if code != PASSED:
            _refuse(package, f"without a mutant, {' '.join(tests)}: pytest exit code {code}")


def _refuse(package: Path, sentence: str) -> NoReturn:
    text = (package / OUTPUT).read_text(encoding="utf-8", errors="replace")
    print("\n".join([*text.splitlines()[-20:], sentence]), file=sys.stderr)
    raise SystemExit(2)


def preload() -> None:
    """Import what is slow and not ours, once for all forks."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import hypothesis  # noqa: F401
    import peft  # noqa: F401
    import torch
    from transformers import GPT2LMHeadModel, LlamaForCausalLM  # noqa: F401

    torch.set_num_threads(1)


def main(words: Sequence[str]) -> int:
    """Run all mutants, or those whose name contains one of the given words. Raises SystemExit(2) where none does."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    if not chosen:
        print(f"no mutant's name contains {' or '.join(map(repr, words))}", file=sys.stderr)
        raise SystemExit(2)
    check_edits(chosen)
    preload()
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch)
        for part in COPIED:
            shutil.copytree(ROOT / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", package)
        check_tests(chosen, package)
        alive = []
        for number, mutant in enumerate(chosen, 1):
            start = time.perf_counter()
            lived = survives(mutant, package)
            alive += [mutant.name] * lived
            verdict, seconds = "SURVIVED" if lived else "killed", time.perf_counter() - start
            print(f"{number:3} of {len(chosen)}  {verdict:8}  {seconds:5.1f} s  {mutant.name}", flush=True)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only mutants whose name contains one of these"
    )
    raise SystemExit(main(parser.parse_args().words))
