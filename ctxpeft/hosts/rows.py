"""One adapter for each row of a batch: as data for a compiled model, and as the rows that each adapter has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxpeft.blocks.capture import Chosen
from ctxpeft.errors import HostError


@dataclass(frozen=True)
class Shares:
    """A batch divided among adapters: `parts` says who has which rows, None is nobody. `back`: where each row of the
    batch is when the parts are laid one behind another, None where they already are in order."""

    parts: tuple[tuple[str | None, Chosen], ...]
    back: Tensor | None

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """(B, ...) from one tensor for each part."""
        whole = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        return whole if self.back is None else whole.index_select(0, self.back)


class Rows:
    """The adapters of a batch: `names` in the order they were attached, and a tensor of places in it.

    A compiled model takes the tensor as an input, so another assignment of the same adapters is no recompilation.
    """

    def __init__(self, rows: Sequence[str | None], attached: Sequence[str], device: torch.device) -> None:
        self.names = tuple(name for name in attached if name in rows)
        self._rows = tuple(rows)
        self._index = torch.tensor(
            [-1 if row is None else self.names.index(row) for row in rows], dtype=torch.long, device=device
        )
        self._shares: dict[tuple[int, frozenset[str], torch.device], Shares] = {}

    def index(self, batch: int, device: torch.device) -> Tensor:
        """(B,) the place in `names` of each row's adapter, -1 for none; a row may come several times (beams).

        Raises HostError if the batch is no multiple of the rows.
        """
        return self._index.to(device).repeat_interleave(self._times(batch), output_size=batch)

    def shares(self, batch: int, names: frozenset[str], device: torch.device) -> Shares:
        """The rows of a batch by adapter, those of adapters that are not among `names` as nobody's.

        Raises HostError if the batch is no multiple of the rows.
        """
        key = (batch, names, device)
        if key not in self._shares:
            self._shares[key] = self._divide(batch, names, device)
        return self._shares[key]

    def _divide(self, batch: int, names: frozenset[str], device: torch.device) -> Shares:
        times = self._times(batch)
        held: dict[str | None, list[int]] = {}
        for row, name in enumerate(self._rows):
            mine = held.setdefault(name if name in names else None, [])
            mine.extend(range(row * times, (row + 1) * times))
        order = [row for rows in held.values() for row in rows]
        parts = tuple((name, _chosen(rows, device)) for name, rows in held.items())
        if order == list(range(batch)):
            return Shares(parts, None)
        back = sorted(range(batch), key=order.__getitem__)
        return Shares(parts, torch.tensor(back, device=device))

    def _times(self, batch: int) -> int:
        given = self._index.shape[0]
        if batch % given:
            raise HostError(f"route names {given} rows and the batch has {batch}")
        return batch // given


def _chosen(rows: list[int], device: torch.device) -> Chosen:
    """Rows that lie side by side as a slice, which copies nothing; others by their numbers."""
    start, end = rows[0], rows[-1] + 1
    return slice(start, end) if end - start == len(rows) else torch.tensor(rows, device=device)
