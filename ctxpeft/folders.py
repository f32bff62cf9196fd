"""What a folder of results holds, so that one command does not write into, or discard, what another one made."""

from __future__ import annotations

from pathlib import Path

from ctxpeft.errors import CtxpeftError

RUN, COMPARISON, SEARCH = "a run of ctxpeft train", "a comparison", "a search"
MARKS = {"resolved.yaml": RUN, "compare.json": COMPARISON, "curve.json": COMPARISON, "search.json": SEARCH}


def only_for(what: str, out: Path) -> None:
    """Refuse a folder of another kind of results.

    Args:
        what: what is to be written, one of RUN, COMPARISON and SEARCH.
        out: where; it need not exist.

    Raises:
        CtxpeftError: `out` holds results of another kind, and none of this one.
    """
    found = [kind for mark, kind in MARKS.items() if (out / mark).is_file()]
    if found and what not in found:
        raise CtxpeftError(f"{out} holds {found[0]}: take another --out for {what}")
