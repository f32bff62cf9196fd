"""The finished runs of tables in one small file, to go on from them on another machine."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.evidence.tables import Table
from ctxpeft.errors import CtxpeftError
from ctxpeft.files import replacing

LEFT_OUT = ("adapter", "checkpoints", ".lock")
RESULT = "result.json"


def pack(out: Path, tables: Iterable[Table], archive: Path) -> int:
    """Write the finished runs of these tables, of every model and size under `out`, to a tar.xz; how many there are.

    What is there decides every byte: neither time nor owner is in it. Checkpoints are left out, and weights but for a
    table that measures them afterwards (dilution).

    Raises:
        CtxpeftError: no run of one of the tables is finished.
    """
    files: list[Path] = []
    count = 0
    for table in tables:
        runs = sorted(path.parent for path in out.glob(f"*/{table.name}/**/{RESULT}"))
        if not runs:
            raise CtxpeftError(f"{out}: no run of the table {table.name} is finished there")
        left_out = LEFT_OUT[1:] if table.dilution else LEFT_OUT
        files += [file for run in runs for file in _files(run, left_out)]
        count += len(runs)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with replacing(archive) as path, tarfile.open(path, "w:xz", preset=9) as tar:
        for file in files:
            tar.add(file, str(file.relative_to(out)), filter=_plain)
    return count


def unpack(archive: Path, out: Path) -> int:
    """Put the runs of an archive where they were, under another `out`; how many are new. A run that is finished there
    is left as it is.

    Raises:
        CtxpeftError: it is no such archive, or holds what would lie elsewhere.
    """
    try:
        with tarfile.open(archive, "r:xz") as tar:
            members = tar.getmembers()
            runs = [Path(m.name).parent for m in members if Path(m.name).name == RESULT]
            new = {run for run in runs if not (out / run / RESULT).exists()}
            last = sorted(
                members, key=lambda m: Path(m.name).name == RESULT
            )  # what says that a run is finished
            tar.extractall(out, [m for m in last if new & {*Path(m.name).parents}], filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CtxpeftError(f"{archive}: expected an archive of runs: {error}") from None
    return len(new)


def _files(run: Path, left_out: Sequence[str]) -> list[Path]:
    """The files of a run that are kept, in order."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return [path for path in files if path.relative_to(run).parts[0] not in left_out]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
