"""Recomputation sees what the forward pass saw."""

from __future__ import annotations

import warnings

import torch

from ctxpeft.errors import HostError
from ctxpeft.testing.laws.ground import DoesNotApply, Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="∂loss/∂θ with recomputation = ∂loss/∂θ",
    source="the design; Chen et al., arXiv:1604.06174",
    least=Size(2, 9),
)
def gradient_checkpointing(host: Host, size: Size) -> None:
    """Gradient checkpointing gives the same gradients, even if the adapter is switched off before backward.

    The reentrant kind may be refused by the host in one sentence, as it is for virtual tokens, which all layers share.
    """
    model, batch = host.model, host.batch(*size[:2])
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise DoesNotApply("the model does not support gradient checkpointing")
    with host.training(), host.attached() as handle:
        plain = host.gradients(handle, batch)
        for reentrant in (False, True):
            _switch(model, "enable", {"use_reentrant": reentrant})
            model.enable_input_require_grads()
            try:
                loss = host.loss(batch)
                with handle.disabled():
                    torch.autograd.backward(loss)
            except HostError as error:
                require(reentrant and "reentrant" in str(error), str(error))
                continue
            finally:
                model.disable_input_require_grads()
                _switch(model, "disable")
            for key, gradient in host.collect(handle).items():
                want = plain[key]
                require((gradient is None) == (want is None), f"{key}: gradient missing")
                if gradient is not None and want is not None:
                    host.evidence.tensors(gradient, want, host.gradient, f"gradient of {key}")


def _switch(model: object, which: str, *arguments: object) -> None:
    """transformers renames gradient checkpointing and warns of the old name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        getattr(model, f"gradient_checkpointing_{which}")(*arguments)
