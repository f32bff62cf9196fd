"""Several adapters on one model: all at once in sum, or one a row of the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from ctxpeft.errors import HostError
from ctxpeft.hosts.controller import controller_of
from ctxpeft.hosts.device import execution_device
from ctxpeft.hosts.handle import Handle
from ctxpeft.hosts.rows import Rows


def activate(model: nn.Module, names: str | Sequence[str]) -> None:
    """Make exactly these adapters act, composed in this order: inside modules join one softmax, outside ones follow.

    A single name may be given as it is. Raises HostError for a name that is not attached or given twice.
    """
    names = [names] if isinstance(names, str) else names
    controller = controller_of(model)
    controller.check(names)
    if len(set(names)) != len(names):
        raise HostError(f"an adapter is named twice: {list(names)}")
    for name, handle in controller.handles.items():
        if not isinstance(handle, Handle) and name not in names:
            raise HostError(f"'{name}' is an HF PEFT tuner; use handle.disabled() or detach it instead")
    controller.active = tuple(names)


@contextlib.contextmanager
def route(model: nn.Module, rows: Sequence[str | None]) -> Iterator[None]:
    """Inside the block row i of every batch goes through adapter rows[i] alone, None through the base.

    Where nothing is trained, adapters of one structure are read at once, from copies of their parameters, one a row,
    which are kept until other rows are routed or an adapter is detached. A batch may hold each row several times in a
    run (beams). In a compiled model the rows are data: other rows of the same adapters use the graph that is there.
    Raises HostError for a name that is not attached, or for no rows.
    """
    controller = controller_of(model)
    controller.check(rows)
    if not rows:
        raise HostError("route was given no rows")
    for name in rows:
        if name is not None and not isinstance(controller.handles[name], Handle):
            raise HostError(f"'{name}' is an HF PEFT tuner and cannot be routed by row")
    weight = next(model.parameters())
    device, attached = execution_device(model, weight), list(controller.handles)
    routed = controller.last_rows
    if routed is None or not routed.same(rows, attached, device):
        routed = controller.last_rows = Rows(rows, attached, device)
    before, controller.routed = controller.routed, routed
    try:
        yield
    finally:
        controller.routed = before
