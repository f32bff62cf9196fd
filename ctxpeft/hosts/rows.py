"""One adapter for each row of a batch: as data for a compiled model, and as the rows that each adapter has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    A compiled model takes the tensor as an input, so another assignment of the same adapters is no recompilation. kept:
    what was made for these rows, dropped with them.
    """

    def __init__(self, rows: Sequence[str | None], attached: Sequence[str], device: torch.device) -> None:
        self.names = _in_order(rows, attached)
        self._rows = tuple(rows)
        self._inference = torch.is_inference_mode_enabled()  # whose tensors serve no backward pass
        places = {name: place for place, name in enumerate(self.names)}
        self._index = torch.tensor(
            [-1 if row is None else places[row] for row in rows], dtype=torch.long, device=device
        )
        self._shares: dict[tuple[int, tuple[tuple[str, str], ...], torch.device], Shares] = {}
        self.kept: dict[object, object] = {}

    def index(self, batch: int, device: torch.device) -> Tensor:
        """(B,) the place in `names` of each row's adapter, -1 for none; a row may come several times (beams).

        Raises HostError if the batch is no multiple of the rows.
        """
        return self._index.to(device).repeat_interleave(self._times(batch), output_size=batch)

    def same(self, rows: Sequence[str | None], attached: Sequence[str], device: torch.device) -> bool:
        """Whether these are the rows of another request: what was made for them serves it."""
        alike = tuple(rows) == self._rows and device == self._index.device
        alike = alike and _in_order(rows, attached) == self.names
        return alike and self._inference == torch.is_inference_mode_enabled()

    def one_for_all(self, batch: int) -> bool:
        """Whether every row goes through the same adapter. Raises HostError if the batch is no multiple of the rows."""
        self._times(batch)
        return self._rows.count(self.names[0]) == len(self._rows)

    def of(self, batch: int, chosen: Chosen) -> list[str]:
        """The adapters of some rows of a batch that have one."""
        times = self._times(batch)
        every = [row for row in self._rows for _ in range(times)]
        mine = every[chosen] if isinstance(chosen, slice) else [every[i] for i in chosen.tolist()]
        return [name for name in mine if name is not None]

    def shares(self, batch: int, labels: Mapping[str, str], device: torch.device) -> Shares:
        """The rows of a batch by the labels of their adapters, those of adapters without one as nobody's.

        Raises HostError if the batch is no multiple of the rows.
        """
        key = (batch, tuple(labels.items()), device)
        if key not in self._shares:
            self._shares[key] = self._divide(batch, labels, device)
        return self._shares[key]

    def _divide(self, batch: int, labels: Mapping[str, str], device: torch.device) -> Shares:
        times = self._times(batch)
        held: dict[str | None, list[int]] = {}
        for row, name in enumerate(self._rows):
            mine = held.setdefault(None if name is None else labels.get(name), [])
            mine.extend(range(row * times, (row + 1) * times))
        order = [row for rows in held.values() for row in rows]
        parts = tuple((name, _chosen(rows, device)) for name, rows in held.items())
        if order == list(range(batch)):
            return Shares(parts, None)
        back = sorted(range(batch), key=order.__getitem__)
        return Shares(parts, torch.tensor(back, device=device))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shares": {}, "kept": {}}

    def _times(self, batch: int) -> int:
        given = self._index.shape[0]
        if batch % given:
            raise HostError(f"route names {given} rows and the batch has {batch}")
        return batch // given


def _in_order(rows: Sequence[str | None], attached: Sequence[str]) -> tuple[str, ...]:
    wanted = set(rows)
    return tuple(name for name in attached if name in wanted)


def _chosen(rows: list[int], device: torch.device) -> Chosen:
    """Rows that lie side by side as a slice, which copies nothing; others by their numbers."""
    start, end = rows[0], rows[-1] + 1
    return slice(start, end) if end - start == len(rows) else torch.tensor(rows, device=device)
