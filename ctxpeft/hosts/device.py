"""Where the parts of a host compute, which is not always where their weights lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def execution_device(module: nn.Module, weight: Tensor) -> torch.device:
    """The device of a weight; where accelerate keeps it off the device (CPU or disk offload leaves the weight on
    meta), the device that accelerate brings it to when the module or a part of it runs."""
    if weight.device.type != "meta":
        return weight.device
    for part in module.modules():
        hook = part.__dict__.get("_hf_hook")
        for one in getattr(hook, "hooks", (hook,)):
            device = getattr(one, "execution_device", None)
            if device is not None:
                return torch.device(device)
    return weight.device
