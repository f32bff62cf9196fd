"""Break each fast path on purpose and see the laws notice: `python -m tests.mutation`.

Every mutant is one edit to a copy of the package; the laws run against the copy. Exit 0 when every mutant is killed,
1 when one survives, 2 when an edit no longer applies to the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCKS = "tests/blocks"
FAMILIES = "tests/hosts/test_families.py"
ADAPTERS = "tests/hosts/test_adapters.py"


@dataclass(frozen=True)
class Mutant:
    """One deliberate mistake: in `file`, `old` becomes `new`; `laws` are the tests that must notice."""

    name: str
    file: str
    old: str
    new: str
    laws: tuple[str, ...]


MUTANTS = (
    Mutant(
        "sign of the prefix", "blocks/compose.py", "n - m[..., None] * o", "n + m[..., None] * o", (BLOCKS,)
    ),
    Mutant(
        "inside modules merged one after another",
        "blocks/compose.py",
        "change = share[..., None] * (n - m[..., None] * o)",
        "change = share[..., None] * (n - m[..., None] * merged)",
        (BLOCKS,),
    ),
    Mutant(
        "content mass forgotten",
        "blocks/compose.py",
        "total = torch.exp(log_mass - shift)",
        "total = torch.zeros_like(log_mass)",
        (BLOCKS,),
    ),
    Mutant(
        "L detached",
        "blocks/compose.py",
        "torch.exp(log_mass - shift)",
        "torch.exp(log_mass.detach() - shift)",
        (BLOCKS,),
    ),
    Mutant(
        "gate on the weight dropped",
        "blocks/compose.py",
        "(change if gate is None else gate * change)",
        "change",
        (BLOCKS,),
    ),
    Mutant(
        "mix adds instead of mixing",
        "blocks/compose.py",
        "gate * (read.n - mine)",
        "gate * read.n",
        (BLOCKS,),
    ),
    Mutant("scaling of the slots lost", "blocks/memory/slots.py", "key) * self.scaling", "key)", (BLOCKS,)),
    Mutant(
        "softcap of the slots lost",
        "blocks/memory/slots.py",
        "torch.tanh(score / self.softcap) * self.softcap",
        "score",
        (FAMILIES,),
    ),
    Mutant(
        "normaliser may be negative",
        "blocks/memory/matrix.py",
        "functional.softplus(self.zeta)",
        "self.zeta",
        (BLOCKS,),
    ),
    Mutant(
        "wrong head repeat",
        "spec/blocks.py",
        "[h // repeat for h in self.heads]",
        "[h % self.kv_heads for h in self.heads]",
        (BLOCKS,),
    ),
    Mutant(
        "temperature inverted",
        "blocks/query.py",
        "torch.exp(-self.log_temperature)",
        "torch.exp(self.log_temperature)",
        (BLOCKS,),
    ),
    Mutant(
        "norm forgotten",
        "blocks/query.py",
        "x.square().mean(-1, keepdim=True)",
        "torch.ones_like(x[..., :1])",
        (BLOCKS,),
    ),
    Mutant(
        "length counted without the log",
        "blocks/context_module.py",
        "torch.log(count.clamp_min(1))",
        "count.clamp_min(1)",
        (BLOCKS,),
    ),
    Mutant(
        "gate on the mass reaches only the numerator",
        "blocks/context_module.py",
        "n * gate, m * gate[..., 0], None",
        "n * gate, m, None",
        (BLOCKS,),
    ),
    Mutant(
        "elu for elu + 1",
        "blocks/feature_maps/elu_plus_one.py",
        "functional.elu(x) + 1",
        "functional.elu(x)",
        (BLOCKS,),
    ),
    Mutant(
        "hedgehog without its other half",
        "blocks/feature_maps/hedgehog.py",
        "torch.cat([y, -y], -1)",
        "torch.cat([y, y], -1)",
        (BLOCKS,),
    ),
    Mutant(
        "half the norm forgotten in the random features",
        "blocks/feature_maps/favor_plus.py",
        "y.square().sum(-1, keepdim=True) / 2",
        "0 * y.square().sum(-1, keepdim=True)",
        (BLOCKS,),
    ),
    Mutant(
        "random rows of the wrong length",
        "blocks/feature_maps/favor_plus.py",
        "torch.cat(directions, -2) * lengths",
        "torch.cat(directions, -2) * width**0.5",
        (BLOCKS,),
    ),
    Mutant(
        "frequencies without their bandwidth",
        "blocks/feature_maps/random_fourier.py",
        "scale = spec.bandwidth * width**0.5",
        "scale = width**0.5",
        (BLOCKS,),
    ),
    Mutant(
        "buffers not saved",
        "blocks/feature_maps/favor_plus.py",
        "orthogonal_gaussian(groups, count, width))",
        "orthogonal_gaussian(groups, count, width), persistent=False)",
        (BLOCKS,),
    ),
    Mutant(
        "products without their root of two",
        "blocks/feature_maps/grouped.py",
        "2**0.5 * upper_products",
        "upper_products",
        (BLOCKS,),
    ),
    Mutant(
        "division by a vanished mass",
        "blocks/context_module.py",
        "empty = m < torch.finfo(m.dtype).tiny",
        "empty = m < 0",
        (BLOCKS,),
    ),
    Mutant(
        "nothing seen at all",
        "blocks/compose.py",
        "total.masked_fill(total < torch.finfo(total.dtype).tiny, 1.0)",
        "total.clamp_min(torch.finfo(total.dtype).tiny)",
        (BLOCKS,),
    ),
    Mutant(
        "gradient of the fused mass dropped",
        "hosts/fused.py",
        "(dmass / norm.clamp_min",
        "(0 * dmass / norm.clamp_min",
        ("tests/hosts/test_fused.py",),
    ),
    Mutant(
        "fused rows that see nothing",
        "hosts/fused.py",
        "mass.masked_fill(~visible.any(-1), -torch.inf)",
        "mass",
        ("tests/hosts/test_fused.py",),
    ),
    Mutant("mask off by one", "hosts/content.py", ".tril()", ".tril(-1)", (FAMILIES,)),
    Mutant(
        "padding counted",
        "hosts/content.py",
        "score = score.masked_fill(~visible, -torch.inf)",
        "pass",
        (FAMILIES,),
    ),
    Mutant(
        "content softcap forgotten",
        "hosts/content.py",
        "score = torch.tanh(score / softcap) * softcap",
        "pass",
        (FAMILIES,),
    ),
    Mutant(
        "content scaling forgotten",
        "hosts/content.py",
        "self.query.shape[-1] ** -0.5 if told is None else told",
        "1.0",
        (FAMILIES,),
    ),
    Mutant("reads after the merge", "hosts/seam.py", "rotated=query,", "rotated=query.flip(2),", (FAMILIES,)),
    Mutant(
        "rotated for unrotated",
        "hosts/discover.py",
        "output = self.split_heads(output, 0)",
        "output = self.split_heads(output, 0).roll(1, -1)",
        ("tests/hosts/test_sources.py",),
    ),
    Mutant(
        "plan not replayed",
        "hosts/seam.py",
        "plan = kwargs.pop(PLAN, None)",
        "plan = kwargs.pop(PLAN, None) and None",
        (FAMILIES,),
    ),
    Mutant(
        "memories cast down",
        "blocks/context_module.py",
        "return t.to(moved.device) if lowered else moved",
        "return moved",
        (ADAPTERS,),
    ),
    Mutant(
        "rows not masked",
        "hosts/controller.py",
        "[r == name for r in self.rows",
        "[True for r in self.rows",
        (ADAPTERS,),
    ),
    Mutant(
        "config left behind",
        "hosts/seam.py",
        "attention.config = self.original_config\n        del",
        "del",
        (FAMILIES, ADAPTERS),
    ),
    Mutant("base left frozen", "hosts/freeze.py", "parameter.requires_grad_(trainable)", "pass", (FAMILIES,)),
    Mutant(
        "weights not checked",
        "adapters/load.py",
        "if tensor.shape != wanted[key].shape:",
        "if False:",
        ("tests/adapters",),
    ),
)


def survives(mutant: Mutant, package: Path) -> bool:
    """Apply the edit to a copy of the package, run its laws, undo. True if no law failed."""
    path = package / "ctxpeft" / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) < 1:
        print(f"mutant '{mutant.name}': {mutant.file} no longer contains {mutant.old!r}", file=sys.stderr)
        raise SystemExit(2)
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.laws]
        environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=package, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode == 0
    finally:
        path.write_text(text, encoding="utf-8")


def main(only: list[str]) -> int:
    """Run all mutants, or those whose name contains one of the given words."""
    chosen = [m for m in MUTANTS if not only or any(word in m.name for word in only)]
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch)
        for part in ("ctxpeft", "variants", "search", "tests"):
            shutil.copytree(ROOT / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", package)
        alive = []
        for mutant in chosen:
            lived = survives(mutant, package)
            alive += [mutant.name] * lived
            print(f"{'SURVIVED' if lived else 'killed  '}  {mutant.name}", flush=True)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
