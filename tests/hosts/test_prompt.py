"""`parameterization: prompt`: virtual tokens, read once a pass by the frozen model."""

import copy

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

import ctxpeft
from ctxpeft.errors import HostError
from ctxpeft.hosts.count import count_parameters
from ctxpeft.testing.hosts.configurations import tiny_config
from ctxpeft.testing.tiny import FAMILIES, TinyTokenizer, perturb, tiny_model

COUNT = 5
IDS = torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(1))
MASKS = {
    "none": torch.ones_like(IDS),
    "left": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]),
    "right": torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7]),
}
EMBEDDING = "shared.0.prompt.embedding"


def variant(count=COUNT, scope=None, **fields):
    memory = {"kind": "slots", "count": count, "init": {"kind": "normal", "std": 1.0}, **fields}
    memory.setdefault("parameterization", {"kind": "prompt"})
    return {
        "name": "prompt",
        "modules": [{"placement": "inside", "memory": memory, **({"scope": scope} if scope else {})}],
    }


def host(family, **options):
    """A model whose window is wider than prompt and input, and without dropout."""
    if family in ("mistral", "gemma2", "gemma3_text"):
        options.setdefault("sliding_window", 64)
    if family == "gpt2":
        options.update(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    return tiny_model(family, **options)


def embeddings(handle):
    """What stands for the prompt: the output of the encoder."""
    (built,) = [b.module for b in handle.built if b.prefix == "shared.0"]
    return built.prompt()


def prepended(model, tokens, ids, mask):
    """The base over the virtual tokens and the input, and the logits of the input."""
    inputs = torch.cat([tokens.expand(len(ids), -1, -1), model.get_input_embeddings()(ids)], 1)
    mask = torch.cat([torch.ones(len(ids), tokens.shape[-2], dtype=mask.dtype), mask], 1)
    return model(inputs_embeds=inputs, attention_mask=mask).logits[:, tokens.shape[-2] :]


def close(ours, theirs, tolerance=1e-5):
    assert torch.allclose(ours, theirs, atol=tolerance * float(theirs.detach().abs().max()), rtol=0)


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_is_the_prompt_before_the_input(family, padding):
    """Values, and the gradient of the embeddings."""
    model, mask = host(family), MASKS[padding]
    handle = ctxpeft.attach(model, variant(), seed=0)
    out = model(IDS, attention_mask=mask).logits
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)) * mask[..., None]
    (out * weights).sum().backward()
    free = embeddings(handle).detach().clone().requires_grad_()
    with handle.disabled():
        expected = prepended(model, free, IDS, mask)
    (expected * weights).sum().backward()
    close(out[mask.bool()], expected[mask.bool()])
    close(dict(handle.named_parameters())[EMBEDDING].grad, free.grad, 5e-5)


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_is_prompt_tuning_of_hf_peft(family, padding):
    """The loss and its gradient, and the logits. PEFT's loss has one term more where the first token of the input has a
    label: the last virtual token predicts it."""
    model, mask = host(family), MASKS[padding]
    labels = IDS.masked_fill(mask.cumsum(1) * mask < 2, -100)
    handle = ctxpeft.attach(model, variant(), seed=0)
    loss = model(IDS, attention_mask=mask, labels=labels).loss
    loss.backward()
    out = model(IDS, attention_mask=mask).logits
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=COUNT)
    theirs = get_peft_model(host(family), config).eval()
    weight = theirs.prompt_encoder["default"].embedding.weight
    weight.data.copy_(embeddings(handle))
    peft = theirs(input_ids=IDS, attention_mask=mask, labels=labels)
    peft.loss.backward()
    close(out[mask.bool()], peft.logits[:, COUNT:][mask.bool()])
    close(loss, peft.loss)
    close(dict(handle.named_parameters())[EMBEDDING].grad, weight.grad, 5e-5)


@pytest.mark.parametrize(
    "encoder", [{"encoder": "mlp", "hidden": 6}, {"encoder": "lstm", "hidden": 6, "lstm_layers": 1}]
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_encoders(family, encoder):
    """Every parameter of the encoder gets the gradient that the explicit prompt gives it."""
    model = host(family)
    handle = ctxpeft.attach(model, variant(parameterization={"kind": "prompt", **encoder}), seed=0)
    out = model(IDS, labels=IDS)
    out.loss.backward()
    ours = {k: p.grad.clone() for k, p in handle.named_parameters()}
    model.zero_grad()
    with handle.disabled():
        expected = prepended(model, embeddings(handle), IDS, MASKS["none"])
    model.loss_function(expected.contiguous(), IDS, model.config.vocab_size).backward()
    close(out.logits, expected)
    for key, parameter in handle.named_parameters():
        close(ours[key], parameter.grad, 1e-4)
        assert bool((ours[key] != 0).any()), key


def test_encoders_have_the_shapes_of_hf_peft():
    from peft import PromptEncoderConfig

    for encoder, name in (("mlp", "MLP"), ("lstm", "LSTM")):
        handle = ctxpeft.attach(
            host("llama"), variant(parameterization={"kind": "prompt", "encoder": encoder})
        )
        config = PromptEncoderConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=COUNT, encoder_reparameterization_type=name
        )
        theirs = get_peft_model(host("llama"), config).prompt_encoder["default"]
        assert sorted(tuple(p.shape) for p in handle.parameters()) == sorted(
            tuple(p.shape) for p in theirs.parameters()
        )
        assert handle.num_parameters("deployed") == COUNT * 32


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_generates_what_the_prompt_before_the_input_generates(family, padding):
    model, mask = host(family), MASKS[padding]
    handle = ctxpeft.attach(model, variant(), seed=0)
    model.generation_config.eos_token_id = None
    settings = {"max_new_tokens": 6, "do_sample": False}
    got = model.generate(IDS, attention_mask=mask, **settings)[:, IDS.shape[1] :]
    tokens = embeddings(handle)
    with handle.disabled(), torch.no_grad():
        inputs = torch.cat([tokens.expand(2, -1, -1), model.get_input_embeddings()(IDS)], 1)
        whole = torch.cat([torch.ones(2, COUNT, dtype=mask.dtype), mask], 1)
        expected = model.generate(inputs_embeds=inputs, attention_mask=whole, **settings)
        plain = model.generate(IDS, attention_mask=mask, **settings)[:, IDS.shape[1] :]
    assert torch.equal(got, expected)
    assert family == "gemma3_text" or not torch.equal(got, plain)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_reads_the_prompt_once(cache):
    """And sees what an optimizer, or `.data`, did to it in between."""
    model = host("llama")
    handle = ctxpeft.attach(model, variant(), seed=0)
    model.generation_config.eos_token_id = None
    (owner,) = [b.module.prompt for b in handle.built if b.prefix == "shared.0"]
    reads = []
    owner.register_forward_hook(lambda *_: reads.append(1))
    settings = {
        "max_new_tokens": 6,
        "do_sample": False,
        "cache_implementation": cache,
        "disable_compile": True,
    }
    first = model.generate(IDS, **settings)
    assert len(reads) == 1
    perturb(handle, std=2.0)
    second = model.generate(IDS, **settings)
    assert len(reads) == 2
    assert not torch.equal(first, second)
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert bool((dict(handle.named_parameters())[EMBEDDING].grad != 0).any())


def test_a_cache_that_goes_on_needs_gradients_of_its_own():
    """A pass on a cache filled without gradients still reaches the embeddings."""
    model = host("llama")
    handle = ctxpeft.attach(model, variant(), seed=0)
    with torch.no_grad():
        cache = model(IDS[:, :4], use_cache=True).past_key_values
    out = model(IDS[:, 4:], past_key_values=cache).logits
    close(out, model(IDS).logits[:, 4:])
    out.sum().backward()
    assert bool((dict(handle.named_parameters())[EMBEDDING].grad != 0).any())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradient_checkpointing_replays_the_prompt(family):
    model = host(family)
    handle = ctxpeft.attach(
        model, variant(parameterization={"kind": "prompt", "encoder": "mlp", "hidden": 6}), seed=0
    )
    model.train()
    model(IDS, labels=IDS).loss.backward()
    plain = {k: p.grad.clone() for k, p in handle.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(IDS, labels=IDS).loss
    model(IDS[:, :3])
    loss.backward()
    for key, parameter in handle.named_parameters():
        close(parameter.grad, plain[key])
    assert all(m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing"))


def test_reentrant_checkpointing_is_refused():
    model = host("llama")
    ctxpeft.attach(model, variant(), seed=0)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.train()
    with pytest.raises(HostError, match="reentrant gradient checkpointing"):
        model(IDS, labels=IDS)
    assert all(m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing"))
    model.eval()
    model(IDS)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_each_row_has_its_own_prompt(family):
    model = host(family)
    alone = {}
    for name, count in (("a", 3), ("b", 6)):
        handle = ctxpeft.attach(model, variant(count), name=name, seed=count)
        ctxpeft.activate(model, [name])
        alone[name] = model(IDS).logits
    with ctxpeft.route(model, ["b", "a"]):
        routed = model(IDS).logits
    close(routed[0], alone["b"][0])
    close(routed[1], alone["a"][1])
    handle.detach()


def test_some_layers_and_heads():
    """Layers out of scope do not see the prompt, and every read is as wide as its scope."""
    model = host("llama")
    handle = ctxpeft.attach(model, variant(scope={"layers": [1], "heads": [2, 3]}), seed=0)
    seen = {}
    for i, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda m, a, out, i=i: seen.__setitem__(i, out))
    model(IDS)
    ours = dict(seen)
    with handle.disabled():
        model(IDS)
    assert torch.equal(ours[0], seen[0])
    assert not torch.equal(ours[1], seen[1])


def test_saved_counted_copied_and_detached(tmp_path):
    model = host("llama")
    base = model(IDS).logits
    before = {key: id(m) for key, m in model.named_modules()}
    handle = ctxpeft.attach(model, variant(), seed=0)
    assert count_parameters(host("llama"), handle.variant) == handle.num_parameters() == COUNT * 32
    out = model(IDS).logits
    handle.save(tmp_path)
    other = host("llama")
    ctxpeft.load(other, tmp_path)
    assert torch.equal(other(IDS).logits, out)
    twin = copy.deepcopy(model)
    perturb(handle)
    assert torch.equal(twin(IDS).logits, out)
    model.to(torch.bfloat16)
    assert {p.dtype for p in handle.parameters()} == {torch.float32}
    model.float()
    with handle.disabled():
        close(model(IDS).logits, base, 0.1)
    handle.detach()
    assert {key: id(m) for key, m in model.named_modules()} == before


def test_the_base_is_untouched_and_the_whole_model_is_needed():
    model = host("llama")
    base = model(IDS).logits
    handle = ctxpeft.attach(model, variant(), seed=0)
    with handle.disabled():
        assert torch.equal(model(IDS).logits, base)
    with pytest.raises(HostError, match="call the model that it was attached to"):
        model.model(IDS)


def test_models_that_look_both_ways_are_refused():
    model = tiny_model("gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(HostError, match=r"modules\[0\]: parameterization 'prompt' needs a causal model"):
        ctxpeft.attach(model, variant())
    assert "_ctxpeft" not in model.__dict__


def from_the_sweep(model_type, **options):
    """The tiny configuration that the sweep of all architectures builds."""
    config = tiny_config(model_type)
    for key, value in options.items():
        setattr(config.get_text_config(decoder=True), key, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    return model


def test_models_that_refuse_embeddings_are_refused():
    """Gemma 4 looks up the tokens of its embeddings: virtual tokens have none."""
    with pytest.raises(HostError, match=r"reads embeddings which are no token's.*direct") as caught:
        ctxpeft.attach(from_the_sweep("gemma4_text"), variant())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "options"), [("gemma3n_text", {}), ("gemma4_text", {"hidden_size_per_layer_input": 0})]
)
def test_layers_that_share_keys_and_values_read_those_of_the_prompt(family, options):
    """The layer that shares another's keys and values sees the prompt in them, as it would before the input."""
    model = from_the_sweep(family, sliding_window=64, **options)
    handle = ctxpeft.attach(model, variant(), seed=0)
    out = model(IDS).logits
    with handle.disabled(), torch.no_grad():
        read = model(inputs_embeds=embeddings(handle).expand(2, -1, -1), use_cache=True)
        expected = model(IDS, past_key_values=read.past_key_values).logits
    close(out, expected, 1e-4)
    model(IDS, labels=IDS).loss.backward()
    assert bool((dict(handle.named_parameters())[EMBEDDING].grad != 0).any())


@pytest.mark.parametrize("family", ["qwen3_next", "falcon_h1", "lfm2_moe", "jamba", "minimax"])
def test_models_with_other_layers_than_attention_are_refused(family):
    """A recurrent layer would not see the virtual tokens: refused when attaching, in one sentence."""
    model = from_the_sweep(family)
    with pytest.raises(HostError, match=r"by attention alone.*use parameterization") as caught:
        ctxpeft.attach(model, variant())
    assert "\n" not in str(caught.value)
    assert "_ctxpeft" not in model.__dict__


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["roberta", "diffllama", "hrm_text", "inkling_text"])
def test_models_that_do_not_read_the_prompt_as_tokens_are_refused(family, dtype):
    """Positions counted by the model itself, two attentions in one, layers called in turn, convolutions."""
    model = from_the_sweep(family, is_decoder=True).to(dtype)
    base, flags = model(IDS).logits, [p.requires_grad for p in model.parameters()]
    with pytest.raises(
        HostError, match=r"\d+% of what two such tokens do is missing.*'direct' or 'mlp'"
    ) as caught:
        ctxpeft.attach(model, variant())
    assert "\n" not in str(caught.value)
    assert "_ctxpeft" not in model.__dict__
    assert torch.equal(model(IDS).logits, base)
    assert [p.requires_grad for p in model.parameters()] == flags


def test_what_is_measured_leaves_no_trace():
    """The check draws nothing from the global random state and leaves other adapters as they act."""
    model = host("llama")
    other = ctxpeft.attach(model, "prefix-tuning", name="other", seed=0)
    ctxpeft.activate(model, [])
    state = torch.random.get_rng_state()
    ctxpeft.attach(model, variant(), seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sorted(model.__dict__["_ctxpeft"].handles) == ["default", "other"]
    assert model.__dict__["_ctxpeft"].active == ("default",)
    assert other.attached


def test_a_model_that_scales_its_embeddings_in_place_leaves_the_prompt_alone():
    """CTRL multiplies what it is given."""
    model = from_the_sweep("ctrl")
    handle = ctxpeft.attach(model, variant(), seed=0)
    before = embeddings(handle).detach().clone()
    out = model(IDS).logits
    with handle.disabled():
        close(out, prepended(model, before, IDS, MASKS["none"]), 1e-4)
    assert torch.equal(embeddings(handle), before)


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2"])
def test_prompts_begin_as_tokens(family):
    """Drawn ones are embeddings as the host scales them; those of a text repeat until there are enough."""
    model = host(family)
    table = model.get_input_embeddings()(torch.arange(61))
    drawn = [
        embeddings(ctxpeft.attach(model, variant(init={"kind": "vocabulary"}), name=f"n{i}", seed=seed))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert all(bool((row == table).all(1).any()) for row in drawn[0])
    ctxpeft.activate(model, [])
    text = {"kind": "vocabulary", "text": "classify this review"}
    handle = ctxpeft.attach(model, variant(init=text), name="text", tokenizer=TinyTokenizer())
    ids = TinyTokenizer()(text["text"])["input_ids"]
    assert torch.equal(embeddings(handle), table[[*ids, *ids][:COUNT]])


def test_a_text_without_a_tokenizer():
    with pytest.raises(HostError, match=r"needs the model's tokenizer.*tokenizer=\.\.\."):
        ctxpeft.attach(host("llama"), variant(init={"kind": "vocabulary", "text": "one two"}))


def test_a_foreign_tokenizer():
    def foreign(text):
        return {"input_ids": [7, 99]}

    model = host("llama")
    with pytest.raises(HostError, match="does not belong to this model: token 99"):
        ctxpeft.attach(model, variant(init={"kind": "vocabulary", "text": "x"}), tokenizer=foreign)
    assert "_ctxpeft" not in model.__dict__


@pytest.mark.parametrize("name", ["prompt-tuning", "p-tuning"])
def test_shipped_variants_train(name):
    model = host("gpt2")
    handle = ctxpeft.attach(model, name, seed=0)
    assert not handle.variant.identity_at_init()
    model(IDS, labels=IDS).loss.backward()
    assert all(bool((p.grad != 0).any()) for p in handle.parameters())
