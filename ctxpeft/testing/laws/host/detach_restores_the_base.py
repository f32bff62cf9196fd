"""Nothing is left behind."""

from __future__ import annotations

from typing import Any

from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")


def _state(model: Any) -> dict[str, Any]:
    modules = dict(model.named_modules())
    return {
        "modules": list(modules),
        "classes": [type(m) for m in modules.values()],
        "hooks": {key: [len(getattr(m, hooks)) for hooks in HOOKS] for key, m in modules.items()},
        "configs": {key: id(m.config) for key, m in modules.items() if "config" in m.__dict__},
        "parameters": [(key, id(p), p.requires_grad) for key, p in model.named_parameters()],
        "buffers": [key for key, _ in model.named_buffers()],
        "checkpoint keys": model.__dict__.get("_keys_to_ignore_on_save"),
    }


@host_law(equation="detach(attach(model)) = model", source="the design", peft=True)
def detach_restores_the_base(host: Host, size: Size) -> None:
    """After detach the model is the base again: outputs bit for bit, modules, hooks, configs and trainable flags."""
    batch = host.batch(*size[:2])
    base, before = host.run(batch), _state(host.model)
    with host.attached():
        host.run(batch)
    host.evidence.exact(host.run(batch), base, "detached")
    after = _state(host.model)
    for what, value in before.items():
        require(after[what] == value, f"detach does not restore the {what} of the model")
