"""What must hold of a variant on a host. A check returns nothing and raises AssertionError with what it found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ctxpeft
from ctxpeft.testing.hosts.subject import PADDING, Subject, perturb, tokens

Variant = Any
Check = Callable[[Subject, Variant], None]
STEPS = 4
TOLERANCE = 2e-4


@torch.no_grad()
def identity_at_init(subject: Subject, variant: Variant) -> None:
    """Attaching changes no bit of the frozen model, for variants that claim it."""
    model = subject.model()
    base = subject.logits(_frozen(subject.model()))
    handle: Any = ctxpeft.attach(model, variant, seed=0)
    if handle.variant.identity_at_init():
        assert torch.equal(subject.logits(model), base), "the logits changed at init"


@torch.no_grad()
def reaches_every_position(subject: Subject, variant: Variant) -> None:
    """A memory that is not zero changes the output at every position, beyond a sliding window too."""
    model = subject.model()
    base = subject.logits(model)
    perturb(ctxpeft.attach(model, variant, seed=0))
    moved = (subject.logits(model) - base).abs().amax((0, 2)) > 0
    assert bool(moved.all()), (
        f"positions {[i for i, m in enumerate(moved.tolist()) if not m]} do not see the memory"
    )


@torch.no_grad()
def disabled_and_detached_are_the_base(subject: Subject, variant: Variant) -> None:
    """Switched off, and after detach, the model is the base bit for bit, its flags as they were."""
    model = subject.model()
    base, flags = subject.logits(model), [p.requires_grad for p in model.parameters()]
    handle: Any = ctxpeft.attach(model, variant, seed=0)
    perturb(handle)
    frozen = subject.logits(_frozen(subject.model()))
    with handle.disabled():
        assert torch.equal(subject.logits(model), frozen), "disabled is not the frozen base"
    handle.detach()
    assert torch.equal(subject.logits(model), base), "detached is not the base"
    assert [p.requires_grad for p in model.parameters()] == flags, "the trainable flags changed"
    assert not [n for n, _ in model.named_modules() if "ctxpeft" in n], "a module was left behind"


def causal(subject: Subject, variant: Variant) -> None:
    """No output depends on a later token, where that is so of the host."""
    model = subject.model()
    if _later_tokens_matter(subject, model):
        return
    perturb(ctxpeft.attach(model, variant, seed=0))
    assert not _later_tokens_matter(subject, model), "an output depends on a later token"


def gradients_reach_every_parameter(subject: Subject, variant: Variant) -> None:
    """Every parameter of the adapter gets a gradient that is not zero, and no parameter of the base any."""
    model = subject.model()
    handle: Any = ctxpeft.attach(model, variant, seed=0)
    perturb(handle)
    logits = subject.logits(model)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    torch.autograd.backward((logits.float() * weights).sum())
    ours = {id(p) for p in handle.parameters()}
    missing = [k for k, p in handle.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not missing, f"no gradient reaches {', '.join(missing[:4])}"
    assert all(bool(torch.isfinite(p.grad).all()) for p in handle.parameters()), "a gradient is not finite"
    assert all(p.grad is None for p in model.parameters() if id(p) not in ours), "the base got a gradient"


def generates_as_it_reads(subject: Subject, variant: Variant) -> None:
    """Cached greedy generation gives the logits of passes over the whole text, of a left-padded batch where the host
    by itself does that, of one without padding where it does only that; where it does neither, nothing is asked."""
    padded = host_generates(subject)
    if padded is None:
        return
    model = subject.model()
    perturb(ctxpeft.attach(model, variant, seed=0))
    distance = _distance(subject, model, padded)
    assert distance <= 2 * TOLERANCE, f"generation and reading differ by {distance:.1e}"


@torch.no_grad()
def saves_and_loads(subject: Subject, variant: Variant) -> None:
    """An adapter read from its folder computes the same bits."""
    model = subject.model()
    handle: Any = ctxpeft.attach(model, variant, seed=0)
    perturb(handle)
    out = subject.logits(model)
    with tempfile.TemporaryDirectory() as folder:
        handle.save(Path(folder) / "adapter")
        other = subject.model()
        ctxpeft.load(other, Path(folder) / "adapter")
    assert torch.equal(subject.logits(other), out), "the loaded adapter computes something else"


CHECKS: tuple[Check, ...] = (
    identity_at_init,
    reaches_every_position,
    disabled_and_detached_are_the_base,
    causal,
    gradients_reach_every_parameter,
    generates_as_it_reads,
    saves_and_loads,
)


def _frozen(model: Any) -> Any:
    """The model with no parameter trained: torch picks some kernels by that flag, and their last bits differ."""
    return model.requires_grad_(False)


def _later_tokens_matter(subject: Subject, model: Any) -> bool:
    later = subject.ids.clone()
    later[:, 6:] = tokens(later.shape[0], later.shape[1] - 6, seed=5)
    with torch.no_grad():
        a, b = subject.logits(model)[:, :6], subject.logits(model, later)[:, :6]
    return not torch.allclose(a, b, atol=TOLERANCE * float(a.abs().max()))


def host_is_causal(subject: Subject) -> bool:
    """Whether the host by itself never looks ahead."""
    return not _later_tokens_matter(subject, subject.model())


def host_generates(subject: Subject) -> bool | None:
    """Whether the host by itself generates what it reads: left-padded (True), only unpadded (False), never (None)."""
    if "generates" not in subject.known:
        subject.known["generates"] = _generates(subject)
    return subject.known["generates"]


def _generates(subject: Subject) -> bool | None:
    found = None
    for padded in (False, True) if can_generate(subject, subject.model()) else ():
        try:
            far = max(_distance(subject, subject.model(), padded, seed) for seed in (3, 4, 5))
        except Exception:  # a host may refuse to generate in as many ways as there are hosts
            return found
        if not far <= TOLERANCE:
            return found
        found = padded
    return found


def can_generate(subject: Subject, model: Any) -> bool:
    """Whether `generate` is meant for the host."""
    return subject.mapping != "masked" and bool(getattr(model, "can_generate", bool)())


def _distance(subject: Subject, model: Any, padded: bool, seed: int = 3) -> float:
    """The largest difference of logits between generation and reading, over the largest logit."""
    ids = tokens(2, 6, seed=seed)
    if padded:
        ids[0, :2] = PADDING
    mask = (ids != PADDING).long()
    config = model.generation_config
    if subject.two_sided and config.decoder_start_token_id is None:
        config.decoder_start_token_id = PADDING
    config.eos_token_id, config.forced_eos_token_id, config.forced_bos_token_id = None, None, None
    options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 1, "disable_compile": True}
    with torch.no_grad():
        torch.manual_seed(0)
        out = model.generate(
            ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **options
        )
        written = torch.stack(out.logits, 1)
        read = _read(subject, model, ids, mask, out.sequences)
    return float((written - read).abs().max() / read.abs().max())


def _read(subject: Subject, model: Any, ids: Tensor, mask: Tensor, sequences: Tensor) -> Tensor:
    """The logits at the generated tokens by passes without a cache."""
    torch.manual_seed(0)
    if subject.two_sided:
        out = model(input_ids=ids, attention_mask=mask, decoder_input_ids=sequences[:, :-1])
        return out.logits[:, -STEPS:]  # type: ignore[no-any-return]
    start = sequences.shape[1] - STEPS
    whole = torch.cat([mask, torch.ones(2, STEPS, dtype=torch.long)], 1)[:, :-1]
    options = {"position_ids": (whole.cumsum(1) - 1).clamp_min(0)} if "position_ids" in subject.takes else {}
    logits: Tensor = model(input_ids=sequences[:, :-1], attention_mask=whole, **options).logits
    return logits[:, start - 1 :]
