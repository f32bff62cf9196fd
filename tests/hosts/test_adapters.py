"""Several adapters on one model: in sum, by row, switched, copied, moved."""

import copy
import pickle

import pytest
import torch

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.testing.tiny import perturb, tiny_model

from .cases import INSIDE, MIXED

LORA = {"name": "lora", "peft": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}}


def tokens(batch=2, length=7):
    return torch.randint(3, 61, (batch, length), generator=torch.Generator().manual_seed(1))


def with_two(first=INSIDE, second="prefix-tuning-plus"):
    model = tiny_model()
    handles = [
        ctxpeft.attach(model, v, name=n, seed=i) for i, (v, n) in enumerate([(first, "a"), (second, "b")])
    ]
    for i, handle in enumerate(handles):
        perturb(handle, seed=i)
    return model, handles


def test_two_inside_adapters_equal_one_with_all_slots():
    """Adapters join one softmax: two adapters of slots equal one adapter that holds the slots of both."""
    slots = {
        "placement": "inside",
        "memory": {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 0.5}},
    }
    one = {"name": "one", "modules": [slots]}
    model, (a, b) = with_two(one, one)
    together, ids = model(tokens()).logits, tokens()
    state = {key: (p.detach(), dict(b.named_parameters())[key].detach()) for key, p in a.named_parameters()}
    a.detach()
    b.detach()
    joined = ctxpeft.attach(
        model, {"name": "two", "modules": [{**slots, "memory": {**slots["memory"], "count": 6}}]}
    )
    for key, parameter in joined.named_parameters():
        parameter.data = torch.cat(state[key], 1)
    assert torch.allclose(model(ids).logits, together, atol=1e-5)


def test_activate_chooses_and_orders():
    model, _ = with_two()
    ids = tokens()
    both = model(ids).logits
    ctxpeft.activate(model, "a")
    only_a = model(ids).logits
    ctxpeft.activate(model, ["b", "a"])
    assert torch.allclose(model(ids).logits, both, atol=1e-5)
    ctxpeft.activate(model, [])
    base = model(ids).logits
    assert not torch.allclose(only_a, both, atol=1e-3)
    assert torch.equal(base, tiny_model()(ids).logits)


@pytest.mark.parametrize("mixed", [INSIDE, MIXED])
def test_rows_equal_separate_runs(mixed):
    """One adapter a row, forward and generate, equal to each adapter alone on its rows."""
    model, _ = with_two(mixed)
    model.generation_config.eos_token_id = None
    ids = tokens(batch=4)
    rows = ["a", None, "b", "a"]
    with ctxpeft.route(model, rows):
        together = model(ids).logits
        generated = model.generate(ids, max_new_tokens=4, do_sample=False)
        beams = model.generate(ids, max_new_tokens=3, num_beams=2, do_sample=False)
    for index, name in enumerate(rows):
        ctxpeft.activate(model, [] if name is None else [name])
        row = ids[index : index + 1]
        assert torch.allclose(model(row).logits[0], together[index], atol=1e-5)
        assert torch.equal(model.generate(row, max_new_tokens=4, do_sample=False)[0], generated[index])
        assert torch.equal(
            model.generate(row, max_new_tokens=3, num_beams=2, do_sample=False)[0], beams[index]
        )


def test_routing_survives_gradient_checkpointing():
    """Leaving the context before backward does not change what is recomputed."""
    model, handles = with_two()
    ids = tokens()
    model.train()
    with ctxpeft.route(model, ["a", "b"]):
        model(ids, labels=ids).loss.backward()
    plain = [p.grad.clone() for h in handles for p in h.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with ctxpeft.route(model, ["a", "b"]):
        loss = model(ids, labels=ids).loss
    loss.backward()
    again = [p.grad for h in handles for p in h.parameters()]
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(plain, again, strict=True))


def test_trains_beside_an_injected_lora():
    """HF PEFT's LoRA and one of ours on one model: both get gradients, the base none, each can leave."""
    model = tiny_model()
    ids = tokens()
    base = model(ids).logits
    lora = ctxpeft.attach(model, LORA, name="lora", seed=0)
    ours = ctxpeft.attach(model, MIXED, name="ours", seed=1)
    perturb(lora)
    perturb(ours)
    both = model(ids)
    model(ids, labels=ids).loss.backward()
    trained = {id(p) for h in (lora, ours) for p in h.parameters()}
    assert all((p.grad is not None) == (id(p) in trained) for p in model.parameters())
    with lora.disabled():
        assert not torch.allclose(model(ids).logits, both.logits, atol=1e-3)
    assert torch.equal(model(ids).logits, both.logits)
    lora.detach()
    ours.detach()
    assert torch.equal(model(ids).logits, base)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_copies_are_whole_and_independent(copier):
    model, (a, _) = with_two(MIXED)
    ids = tokens()
    out = model(ids).logits
    twin = copier(model)
    assert torch.equal(twin(ids).logits, out)
    perturb(a)
    assert torch.equal(twin(ids).logits, out)
    ctxpeft.activate(twin, [])
    assert not torch.equal(model(ids).logits, twin(ids).logits)
    twin.set_attn_implementation("eager")
    assert model.config._attn_implementation != "eager"
    assert torch.allclose(twin(ids).logits, tiny_model()(ids).logits, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_memories_stay_in_single_precision(dtype):
    """A low-precision base, cast before or after attaching: fp32 memories, identity at init bit for bit."""
    ids = tokens()
    early = tiny_model().to(dtype)
    base = early(ids).logits
    handle = ctxpeft.attach(early, "prefix-tuning-plus", seed=0)
    assert {p.dtype for p in handle.parameters()} == {torch.float32}
    assert torch.equal(early(ids).logits, base)
    late = tiny_model()
    handle = ctxpeft.attach(late, MIXED, seed=0)
    perturb(handle)
    exact = [p.detach().clone() for p in handle.parameters()]
    late.half() if dtype == torch.float16 else late.to("cpu", dtype)
    assert all(torch.equal(p, q) for p, q in zip(handle.parameters(), exact, strict=True))
    logits = late(ids).logits
    assert logits.dtype == dtype
    assert bool(torch.isfinite(logits).all())


def test_stays_in_double_precision_on_a_double_host():
    model = tiny_model().double()
    handle = ctxpeft.attach(model, MIXED, seed=0)
    assert {p.dtype for p in handle.parameters()} == {torch.float64}
    assert model(tokens()).logits.dtype == torch.float64


def test_the_seed_decides_the_initialisation():
    def start(seed):
        return torch.cat([p.flatten() for p in ctxpeft.attach(tiny_model(), MIXED, seed=seed).parameters()])

    state = torch.random.get_rng_state()
    first = start(3)
    torch.random.set_rng_state(state)
    untouched = torch.random.get_rng_state()
    assert torch.equal(first, start(3))
    assert not torch.equal(first, start(4))
    assert torch.equal(state, untouched)


def test_checkpoints_hold_the_adapter_only(tmp_path):
    """What the stock Trainer leaves out of a checkpoint is exactly the base."""
    model = tiny_model()
    before = model._keys_to_ignore_on_save
    handle = ctxpeft.attach(model, MIXED, seed=0)
    kept = set(model.state_dict()) - set(model._keys_to_ignore_on_save)
    assert len(kept) == len(list(handle.named_parameters()))
    handle.detach()
    assert model._keys_to_ignore_on_save == before


class TestRefusals:
    """One sentence, and the model as it was."""

    def refused(self, model, match, action):
        before = model(tokens()).logits
        with pytest.raises(HostError, match=match) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert torch.equal(model(tokens()).logits, before)

    def test_name_taken(self):
        model, _ = with_two()
        self.refused(model, "'a' is attached already", lambda: ctxpeft.attach(model, INSIDE, name="a"))

    @pytest.mark.parametrize("name", ["", "a.b", "../x", "a b", "-"])
    def test_names_that_are_none(self, name):
        model = tiny_model()
        self.refused(model, "not an adapter name", lambda: ctxpeft.attach(model, INSIDE, name=name))

    def test_unknown_adapter(self):
        model, _ = with_two()
        self.refused(model, "no adapter called 'c'", lambda: ctxpeft.activate(model, ["c"]))
        self.refused(model, "no adapter called 'other'", lambda: ctxpeft.activate(model, "other"))

    def test_twice(self):
        model, _ = with_two()
        self.refused(model, "named twice", lambda: ctxpeft.activate(model, ["a", "a"]))

    def test_detached_twice(self):
        model, (a, _) = with_two()
        a.detach()
        self.refused(model, "detached already", a.detach)

    def test_layers_the_model_lacks(self):
        model = tiny_model()
        variant = {"name": "x", "modules": [{**INSIDE["modules"][0], "scope": {"layers": [0, 7]}}]}
        self.refused(
            model,
            r"modules\[0\]: scope.layers names layer 7 .* 0 to 1",
            lambda: ctxpeft.attach(model, variant),
        )

    def test_heads_the_model_lacks(self):
        model = tiny_model()
        variant = {"name": "x", "modules": [{**INSIDE["modules"][0], "scope": {"heads": [9]}}]}
        self.refused(model, "scope.heads names head 9 .* 0 to 3", lambda: ctxpeft.attach(model, variant))

    def test_unequal_heads_of_a_group(self):
        model = tiny_model()
        variant = {"name": "x", "modules": [{**INSIDE["modules"][0], "scope": {"heads": [0, 1, 2]}}]}
        self.refused(model, "unequal numbers of heads", lambda: ctxpeft.attach(model, variant))

    def test_a_model_without_attention(self):
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(
            "mamba", vocab_size=61, hidden_size=16, num_hidden_layers=1, state_size=4
        )
        model = AutoModelForCausalLM.from_config(config).eval()
        self.refused(
            model, "no attention it can serve.*attention interface", lambda: ctxpeft.attach(model, INSIDE)
        )

    def test_peft_targets_that_do_not_exist(self):
        model = tiny_model()
        bad = {"name": "x", "peft": {**LORA["peft"], "target_modules": ["nowhere"]}}
        self.refused(model, "PEFT cannot inject it here", lambda: ctxpeft.attach(model, bad))
        assert all(p.requires_grad for p in model.parameters())

    def test_nothing_attached(self):
        self.refused(model := tiny_model(), "no ctxpeft adapter", lambda: ctxpeft.activate(model, []))

    def test_rows_that_do_not_divide_the_batch(self):
        model, _ = with_two()
        with (
            ctxpeft.route(model, ["a", "b", "a"]),
            pytest.raises(HostError, match="3 rows and the batch has 2"),
        ):
            model(tokens())
