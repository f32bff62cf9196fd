"""The head reads the tokens before a label alone, and neither the loss nor any gradient changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer

import ctxpeft
from ctxpeft.tasks import Answers, takes_answers_alone
from ctxpeft.testing.tiny import FAMILIES, perturb, tiny_model
from ctxpeft.training import Bench, TrainingConfig, load_method, run
from ctxpeft.training import _job as job_module
from ctxpeft.training._order import OrderedExamples
from tests.hosts.cases import VARIANTS
from tests.training.stock import arguments, losses
from tests.training.test_together import GENERATED

HEADED = {"name": "head", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["lm_head", "q_proj"]}}
ATTACHED: dict[str, Any] = {
    "slots": "prefix-tuning",
    "mixed": VARIANTS["mixed"],
    "virtual tokens": "prompt-tuning",
    "generated": GENERATED,
    "head": HEADED,
}


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Tensor]:
    """Right-padded rows; labels anywhere, at least one that a token precedes."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    ids = torch.randint(
        3, 61, (rows, length), generator=torch.Generator().manual_seed(draw(st.integers(0, 999)))
    )
    lengths = torch.tensor(draw(st.lists(st.integers(2, length), min_size=rows, max_size=rows)))
    mask = (torch.arange(length)[None] < lengths[:, None]).long()
    chosen = torch.tensor(draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length)))
    chosen = chosen.view(rows, length) & mask.bool()
    chosen[0, 1] = True
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": ids.masked_fill(~chosen, -100)}


def without_labels(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def losses_and_gradients(
    model: Any, parameters: list[nn.Parameter], batch: dict[str, Tensor], items: int | None
) -> list[tuple[Tensor, list[Tensor]]]:
    """Of the model's own loss, and of that of the answers."""
    answers = Answers.of(batch["labels"])
    more = {} if items is None else {"num_items_in_batch": items}
    whole = model(**batch, **more).loss
    with answers.alone(model):
        logits = model(**without_labels(batch)).logits
    assert logits.shape[:2] == (1, len(answers.targets))
    ours = answers.loss(model, answers.logits(logits), items)
    return [
        (loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True)))
        for loss in (whole, ours)
    ]


@settings(max_examples=25)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    attached=st.sampled_from(sorted(ATTACHED)),
    batch=batches(),
    items=st.sampled_from([None, 3, 17]),
)
def test_loss_and_every_gradient(
    family: str, attached: str, batch: dict[str, Tensor], items: int | None
) -> None:
    if family in ("gpt2", "phi3") and attached == "head":  # no q_proj of its own
        family = "llama"
    model: Any = tiny_model(family, tie_word_embeddings=False).double()
    handle = ctxpeft.attach(model, ATTACHED[attached], seed=0)
    perturb(handle, std=0.1)
    (whole, expected), (ours, found) = losses_and_gradients(model, list(handle.parameters()), batch, items)
    torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-6)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_of_every_parameter_of_a_model_with_tied_embeddings() -> None:
    model: Any = tiny_model("gemma2", final_logit_softcapping=3.0, tie_word_embeddings=True).double()
    ids = torch.randint(3, 61, (3, 7))
    batch = {"input_ids": ids, "labels": ids.masked_fill(torch.rand(3, 7) < 0.6, -100)}
    batch["labels"][0, 3] = ids[0, 3]
    (whole, expected), (ours, found) = losses_and_gradients(model, list(model.parameters()), batch, None)
    torch.testing.assert_close(ours, whole)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@settings(max_examples=20)
@given(batch=batches())
def test_the_head_multiplies_answers_alone(batch: dict[str, Tensor]) -> None:
    model: Any = tiny_model()
    answers = Answers.of(batch["labels"])

    def products(function: Any) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function()
        return int(counter.get_total_flops())

    def alone() -> None:
        with answers.alone(model):
            model(**without_labels(batch))

    spared = batch["labels"].numel() - len(answers.targets)
    width, vocabulary = model.lm_head.in_features, model.lm_head.out_features
    whole = products(lambda: model(**without_labels(batch)))
    assert whole - products(alone) == 2 * spared * width * vocabulary


@given(batch=batches(), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_divided_by_rows(batch: dict[str, Tensor], sizes: list[int]) -> None:
    row = batch["labels"][:1]
    labels = torch.cat([torch.where(torch.rand(row.shape) < 0.5, row, -100) for _ in range(sum(sizes))])
    joined = Answers.of(labels)
    for (part, where), own in zip(joined.divided(sizes), torch.split(labels, sizes), strict=True):
        assert torch.equal(part.targets, Answers.of(own).targets)
        assert torch.equal(joined.targets[where], part.targets)


def test_the_hook_goes_with_the_block() -> None:
    model: Any = tiny_model()
    ids = torch.randint(3, 61, (2, 5))
    before = model(input_ids=ids).logits
    with pytest.raises(KeyError), Answers.of(ids).alone(model):
        raise KeyError
    assert torch.equal(model(input_ids=ids).logits, before)


class Smoothed:
    """A model that takes its loss another way."""

    def __init__(self, model: Any, change: Any) -> None:
        self.plain, self.change = model.forward, change

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.plain(*args, **kwargs)
        if output.loss is not None:
            output.loss = self.change(output)
        return output


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda output: output.loss, True),
        (lambda output: output.loss + 0.1, False),
        (lambda output: 0.9 * output.loss, False),
        (lambda output: output.loss - 0.05 * output.logits.log_softmax(-1).mean(), False),
    ],
)
def test_models_with_another_loss_keep_it(change: Any, taken: bool) -> None:
    model: Any = tiny_model().train()
    ids = torch.randint(3, 61, (2, 6))
    model.forward = Smoothed(model, change)
    assert takes_answers_alone(model, {"input_ids": ids, "labels": ids}) is taken
    assert model.training


def test_a_router_that_adds_to_the_loss() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "router_aux_loss_coef": 0.5,
    }
    ids = torch.randint(3, 61, (2, 6))
    for adds in (True, False):
        config = AutoConfig.for_model("mixtral", **shape, output_router_logits=adds)
        model = AutoModelForCausalLM.from_config(config).eval()
        assert takes_answers_alone(model, {"input_ids": ids, "labels": ids}) is not adds


def test_a_model_whose_head_cannot_be_told() -> None:
    model: Any = tiny_model()
    ids = torch.randint(3, 61, (2, 6))
    model.get_output_embeddings = lambda: None
    assert not takes_answers_alone(model, {"input_ids": ids, "labels": ids})
    answers = Answers.of(ids)
    with answers.alone(model):
        given = model(input_ids=ids).logits
    assert given.shape[:2] == ids.shape
    torch.testing.assert_close(
        answers.loss(model, answers.logits(given)), model(input_ids=ids, labels=ids).loss
    )


def trained(bench: Bench, method: str, monkeypatch: pytest.MonkeyPatch, alone: bool, **options: Any) -> Any:
    """A short run with the head read at the answers or everywhere, and the places its head read in training."""
    read: list[int] = []
    config = TrainingConfig(steps=6, batch_size=4, **options)
    if not alone:
        monkeypatch.setattr(job_module, "takes_answers_alone", lambda *_: False)
    hook = bench.base.model.lm_head.register_forward_hook(
        lambda module, _, out: read.append(out.shape[:-1].numel()) if module.training else None
    )
    try:
        return run(bench, load_method(method), config, generate=0), read
    finally:
        hook.remove()
        monkeypatch.undo()


@pytest.mark.parametrize("method", ["prefix-tuning-plus", "prompt-tuning", "lora-qv", "full"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_runs_are_those_with_all_logits(
    bench: Bench, method: str, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"gradient_accumulation": accumulation, "eval_every": 3}
    ours, few = trained(bench, method, monkeypatch, True, **options)
    whole, all_places = trained(bench, method, monkeypatch, False, **options)
    assert ours.train_loss == pytest.approx(whole.train_loss, rel=1e-4)
    assert [h.loss for h in ours.held_out] == pytest.approx([h.loss for h in whole.held_out], rel=1e-4)
    assert len(few) == len(all_places) == 6 * accumulation
    assert max(few) < min(all_places)


def test_equal_to_the_stock_trainer(bench: Bench, tmp_path: Any) -> None:
    """Losses of our runs are what the stock Trainer takes from the same batches."""
    config = TrainingConfig(
        steps=4, batch_size=4, gradient_accumulation=2, learning_rate=0.01, warmup_ratio=0
    )
    ours = run(bench, "prefix-tuning-plus", config, splits=(), generate=0)
    drawn = bench.drawn(config.seed)
    order = OrderedExamples(drawn.train, config.steps, 8, config.seed, config.group_by_length)
    model = bench.base.model
    handle = ctxpeft.attach(model, "prefix-tuning-plus", seed=config.seed)
    try:
        quiet = arguments(
            tmp_path,
            max_steps=4,
            gradient_accumulation_steps=2,
            learning_rate=0.01,
            lr_scheduler_type=config.scheduler,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch",
            save_strategy="no",
            remove_unused_columns=False,
        )
        stock = Trainer(model=model, args=quiet, train_dataset=order, data_collator=bench.encoder.collator())
        stock._get_train_sampler = lambda *_, **__: torch.utils.data.SequentialSampler(order)
        stock.train()
    finally:
        handle.detach()
        model.eval()
    assert ours.train_loss == pytest.approx(losses(stock)[-1], rel=1e-4)
