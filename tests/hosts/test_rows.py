"""Routing reads rows: an adapter computes what it computes alone, and the work of a batch is that of its parts."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ctxpeft
from ctxpeft.hosts.site import Divided, merge
from ctxpeft.testing.tiny import perturb, tiny_model
from ctxpeft.training import Member, Together

from .cases import INSIDE, MIXED, WIDE

SCOPED = {
    "name": "scoped",
    "modules": [
        {"placement": "inside", "memory": {"kind": "slots", "count": 2}, "scope": {"tokens": "prompt"}},
        {
            "placement": "outside",
            "site": "ffn",
            "memory": {"kind": "vector"},
            "scope": {"tokens": "generated"},
        },
    ],
}
BEHIND = {
    "name": "behind",
    "modules": [
        {
            "placement": "outside",
            "projected": False,
            "feature_map": {"kind": "elu"},
            "memory": {"kind": "matrix", "init": {"kind": "normal", "std": 0.3}},
        },
        {
            "placement": "outside",
            "site": "attention_output",
            "feature_map": {"kind": "elu"},
            "memory": {"kind": "matrix"},
        },
    ],
}
SPECS: dict[str, Any] = {
    "inside": INSIDE,
    "plus": "prefix-tuning-plus",
    "mixed": MIXED,
    "wide": WIDE,
    "scoped": SCOPED,
    "prompt": "prompt-tuning",
    "behind": BEHIND,
}
ROWS = {
    "side by side": ["mixed", "behind", None, "wide", "scoped", "prompt"],
    "scattered": ["scoped", "behind", None, "prompt", "mixed", "behind"],
    "all alike": ["mixed"] * 6,
    "nobody's": [None, "plus", None, None, "plus", None],
}
IDS = torch.randint(3, 61, (6, 8), generator=torch.Generator().manual_seed(1))
LABELS = IDS.masked_fill(torch.arange(8) < 4, -100)


def masked(acting: Any, plan: Any, batch: int, device: Any) -> Divided:
    """What a compiled pass does: all rows, under a mask."""
    active = [
        (module, plan.mask(name, module.spec.scope.tokens, batch, device))
        for name, modules in acting.items()
        for module in modules
    ]
    return Divided(None, [(None, active)])


def attached(names: Any = SPECS, double: bool = False) -> tuple[Any, dict[str, Any]]:
    model = tiny_model().double() if double else tiny_model()
    handles = {n: ctxpeft.attach(model, SPECS[n], name=n, seed=i) for i, n in enumerate(names)}
    for handle in handles.values():
        perturb(handle)
    return model, handles


def logits_and_gradients(model: Any, handles: Any, rows: list[str | None]) -> tuple[Any, dict[str, Any]]:
    """And the gradients of a weighted sum of the logits."""
    for parameter in model.parameters():
        parameter.grad = None
    with ctxpeft.route(model, rows):
        out = model(IDS, labels=LABELS).logits
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return out.detach(), {
        f"{name}.{key}": p.grad for name, h in handles.items() for key, p in h.named_parameters()
    }


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("rows", ROWS)
def test_reading_rows_equals_masking_them(rows: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and the gradient of every parameter, against all modules on all rows under a mask."""
    model, handles = attached(double=True)
    model.set_attn_implementation(backend)
    ours, gradients = logits_and_gradients(model, handles, ROWS[rows])
    monkeypatch.setattr(Divided, "of", masked)
    theirs, wanted = logits_and_gradients(model, handles, ROWS[rows])
    assert torch.allclose(ours, theirs, atol=1e-10)
    for key, gradient in gradients.items():
        other = wanted[key]
        if key.partition(".")[0] not in ROWS[rows]:
            assert gradient is None
        else:
            assert torch.allclose(gradient, other, atol=1e-9, rtol=1e-8), key


def test_attention_weights_are_what_is_left_in_every_row() -> None:
    model, _ = attached(["inside", "plus"])
    model.set_attn_implementation("eager")
    rows = ["inside", None, "plus", "inside", None, "inside"]
    with ctxpeft.route(model, rows):
        told = model(IDS, output_attentions=True).attentions
    for row, name in enumerate(rows):
        ctxpeft.activate(model, [] if name is None else [name])
        alone = model(IDS[row : row + 1], output_attentions=True).attentions
        assert all(torch.allclose(a[row], b[0], atol=1e-6) for a, b in zip(told, alone, strict=True))


def work(model: Any, rows: list[str | None], ids: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, ctxpeft.route(model, rows), torch.no_grad():
        model(ids)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("distinct", [1, 8, 64])
def test_serving_many_costs_what_serving_one_costs(distinct: int) -> None:
    """64 rows through 1, 8 or 64 adapters of one kind: the same number of operations, as one adapter on all rows."""
    model = tiny_model()
    names = [f"a{i}" for i in range(distinct)]
    for name in names:
        for parameter in ctxpeft.attach(model, MIXED, name=name, seed=0).parameters():
            parameter.requires_grad_(False)
    ids = IDS[:1].repeat(64, 1)
    base = work(model, [None], ids)
    ctxpeft.activate(model, names[:1])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    one = counter.get_total_flops()
    assert one > 1.02 * base
    for rows in (names * (64 // distinct), [n for n in names for _ in range(64 // distinct)]):
        assert work(model, rows, ids) == one


def test_training_together_costs_what_training_apart_costs() -> None:
    """Forward and backward of four members in one pass against a pass each, in operations of matrix products.

    All begin at the attention of the first layer: one that begins lower has gradients flow further down in every row.
    """
    model, handles = attached(["inside", "plus", "mixed", "scoped"])
    members = {n: Member(torch.optim.SGD(h.parameters(), lr=0.0)) for n, h in handles.items()}
    batches = {
        n: {"input_ids": IDS[i : i + 2], "labels": LABELS[i : i + 2]}
        for i, n in enumerate(["inside", "plus"])
    } | {n: {"input_ids": IDS, "labels": LABELS} for n in ("mixed", "scoped")}
    together = Together(model, members)
    with FlopCounterMode(display=False) as counter:
        losses = together.step(batches)
    one_pass, apart, alone = counter.get_total_flops(), 0, {}
    for name in handles:
        with FlopCounterMode(display=False) as counter:
            alone[name] = together.step_alone(name, batches[name])
        apart += counter.get_total_flops()
    assert losses == pytest.approx(alone, rel=1e-5)
    assert one_pass <= 1.01 * apart


def test_no_row_is_copied_where_rows_lie_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = attached(["inside", "plus"])
    seen = []

    def see(capture: Any, *rest: Any) -> Any:
        parts = rest[1].rows.shares(6, {n: n for n in rest[0].acting}, capture.output.device)
        seen.append((parts.back, [type(chosen) for _, chosen in parts.parts]))
        return merge(capture, *rest)

    monkeypatch.setattr("ctxpeft.hosts.seam.merge", see)
    with ctxpeft.route(model, ["inside", "inside", "plus", "plus", None, None]):
        model(IDS)
    assert seen
    assert all(back is None and set(kinds) == {slice} for back, kinds in seen)
