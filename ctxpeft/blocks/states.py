"""What one layer of the frozen host computes for a text: the material that compiled memories begin from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ctxpeft.blocks.capture import Capture


@dataclass(frozen=True)
class TextStates:
    """One layer, one text of S tokens, no adapter active.

    rotated_key (Hkv, S, d): as cached, with the text standing right before position 0 (or from 0 on, where the slots
    say so). value (Hkv, S, dv). key: -> (Hkv, S, d), before RoPE, key norm included; a function, because a layer that
    shares the keys of another has none of its own (it raises HostError). capture: the site's own state in that pass,
    one row.
    """

    rotated_key: Tensor
    key: Callable[[], Tensor]
    value: Tensor
    capture: Capture
