"""Adapters trained side by side take the steps they would take alone."""

from typing import Any

import pytest
import torch

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.testing.tiny import perturb, tiny_model
from ctxpeft.training import Member, Together
from tests.hosts.cases import MIXED, WIDE
from tests.hosts.test_adapters import LORA

GENERATED = {
    "name": "generated",
    "modules": [
        {
            "placement": "outside",
            "feature_map": {"kind": "elu"},
            "memory": {"kind": "matrix"},
            "scope": {"tokens": "generated"},
        }
    ],
}
SPECS: dict[str, Any] = {
    "slots": "prefix-tuning",
    "mixed": MIXED,
    "wide": WIDE,
    "told": GENERATED,
    "twin": MIXED,
}
RATES = {"slots": 0.05, "mixed": 0.01, "wide": 0.02, "told": 0.03, "twin": 0.002}
CLIPS = {"slots": 1.0, "mixed": None, "wide": 0.1, "told": 1.0, "twin": 0.5}
STEPS = 4


def batch(name: str, step: int) -> dict[str, torch.Tensor]:
    """Other data, other lengths and other batch sizes for every member; rows padded on the right."""
    place = list(SPECS).index(name)
    generator = torch.Generator().manual_seed(100 * place + step)
    ids = torch.randint(3, 61, (2 + place % 2, 6 + place), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :3] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def member(handle: Any, name: str) -> Member:
    optimizer = torch.optim.AdamW(handle.parameters(), lr=RATES[name], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)
    return Member(optimizer, schedule, CLIPS[name])


def attached(names: Any) -> tuple[Any, dict[str, Any]]:
    model = tiny_model()
    handles = {n: ctxpeft.attach(model, SPECS[n], name=n, seed=list(SPECS).index(n)) for n in names}
    for handle in handles.values():
        perturb(handle, std=0.1)
    return model.train(), handles


def alone(name: str) -> tuple[list[float], list[torch.Tensor], list[torch.Tensor]]:
    """A plain training loop of one adapter: losses, the first gradient, the parameters after all steps."""
    model, handles = attached([name])
    mine = member(handles[name], name)
    losses, first = [], []
    for step in range(STEPS):
        loss = model(**batch(name, step)).loss
        loss.backward()
        first = first or [p.grad.clone() for p in handles[name].parameters()]
        if mine.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(handles[name].parameters(), mine.max_grad_norm)
        mine.optimizer.step()
        mine.scheduler.step()
        mine.optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses, first, [p.detach() for p in handles[name].parameters()]


def test_equal_to_separate_runs() -> None:
    model, handles = attached(SPECS)
    together = Together(model, {name: member(handles[name], name) for name in SPECS})
    first: dict[str, Any] = {}

    def see(name: str) -> Any:
        def hook(*_: Any) -> None:
            first.setdefault(name, [p.grad.clone() for p in handles[name].parameters()])

        return hook

    for name in SPECS:
        together.members[name].optimizer.register_step_pre_hook(see(name))
    curves = [together.step({name: batch(name, step) for name in SPECS}) for step in range(STEPS)]
    for name in SPECS:
        losses, gradients, parameters = alone(name)
        assert [curve[name] for curve in curves] == pytest.approx(losses, rel=1e-5), name
        if CLIPS[name] is None:
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first[name], gradients, strict=True))
        after = list(handles[name].parameters())
        assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(after, parameters, strict=True)), name
    assert all(p.grad is None for p in model.parameters())


def test_clipped_gradients_are_those_of_the_member_alone() -> None:
    model, handles = attached(["wide", "slots"])
    seen = {}
    members = {name: member(handles[name], name) for name in handles}
    for name, one in members.items():
        one.optimizer.register_step_pre_hook(
            lambda *_, name=name: seen.update({name: [p.grad.clone() for p in handles[name].parameters()]})
        )
    Together(model, members).step({name: batch(name, 0) for name in handles})
    for name in handles:
        _, gradients, _ = alone(name)
        norm = torch.nn.utils.get_total_norm(gradients)
        assert norm > CLIPS[name]
        assert torch.nn.utils.get_total_norm(seen[name]) == pytest.approx(CLIPS[name], rel=1e-4)
        for ours, theirs in zip(seen[name], gradients, strict=True):
            assert torch.allclose(ours, theirs * CLIPS[name] / norm, atol=1e-6)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_one_that_diverges_leaves_the_others_alone(bad: float) -> None:
    model, handles = attached(["slots", "mixed", "wide"])
    with torch.no_grad():
        next(handles["mixed"].parameters()).fill_(bad)
    together = Together(model, {name: member(handles[name], name) for name in handles})
    before = [p.detach().clone() for p in handles["mixed"].parameters()]
    for step in range(STEPS):
        told = together.step({name: batch(name, step) for name in handles})
        assert ("mixed" in told) == (step == 0)
    assert together.running() == ["slots", "wide"]
    kept = handles["mixed"].parameters()
    assert all(torch.equal(p.nan_to_num(), q.nan_to_num()) for p, q in zip(kept, before, strict=True))
    for name in together.running():
        _, _, parameters = alone(name)
        assert all(
            torch.allclose(a, b, atol=2e-4)
            for a, b in zip(handles[name].parameters(), parameters, strict=True)
        )


def test_losses_do_not_train() -> None:
    model, handles = attached(["slots", "told"])
    together = Together(model, {name: member(handles[name], name) for name in handles})
    batches = {name: batch(name, 0) for name in handles}
    measured = together.losses(batches)
    assert measured == together.losses(batches)
    assert together.step(batches) == pytest.approx(measured, rel=1e-5)
    assert model.training


def test_refusals() -> None:
    model, handles = attached(["slots"])
    mine = {"slots": member(handles["slots"], "slots")}
    with pytest.raises(HostError, match="no adapter called 'slot'"):
        Together(model, {"slot": mine["slots"]})
    with pytest.raises(HostError, match="'slots' is trained here and has no batch"):
        Together(model, mine).step({})
    lora = ctxpeft.attach(model, LORA, name="lora", seed=0)
    with pytest.raises(HostError, match="cannot be routed by row"):
        Together(model, {"lora": Member(torch.optim.SGD(lora.parameters(), lr=0.1))})
