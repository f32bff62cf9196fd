"""Folders of HF PEFT load as ordinary variants that compute what PEFT computes."""

import contextlib
import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import ctxpeft
from ctxpeft.errors import AdapterError
from ctxpeft.testing.tiny import tiny_model
from tests.adapters.peft_folders import (
    COUNT,
    IDS,
    MASKS,
    METHODS,
    MODELS,
    PAIRS,
    PROMPTS,
    assert_same_logits,
    generated,
    peft_model,
    saved,
)

pairs = pytest.mark.parametrize(("method", "family"), PAIRS)


@pytest.mark.parametrize("padding", MASKS)
@pairs
def test_logits_are_those_of_peft(tmp_path, method, family, padding):
    theirs, mask = saved(method, family, tmp_path), MASKS[padding]
    model = tiny_model(family)
    base = model(IDS, attention_mask=mask).logits[mask.bool()].detach()
    ctxpeft.load(model, tmp_path)
    assert_same_logits(model, theirs, method, mask)
    ours = model(IDS, attention_mask=mask).logits[mask.bool()].detach()
    assert float((ours - base).abs().max()) > 0.1


def test_what_peft_itself_has_not(tmp_path):
    """It has LLaMA-Adapter for three types of models: there is no such folder for Qwen3."""
    refusals = {}
    for family in MODELS:
        try:
            peft_model("llama-adapter", family)
        except ValueError as error:
            refusals[family] = str(error)
    assert refusals == {"qwen3": "Unsupported model type for adaption prompt: 'qwen3'."}


@pytest.mark.parametrize("padding", ["none", "left"])
@pairs
def test_generates_what_peft_generates(tmp_path, method, family, padding):
    """Batches with left padding too; but for prompts, where PEFT's generate drops the position ids and so moves the
    padded rows away from their prompt: there, what PEFT generates for each row alone."""
    theirs, mask = saved(method, family, tmp_path), MASKS[padding]
    if method in PROMPTS:
        rows = [
            generated(theirs, row[m.bool()][None], m[m.bool()][None])
            for row, m in zip(IDS, mask, strict=True)
        ]
        expected = torch.cat(rows)
    else:
        expected = generated(theirs, IDS, mask)
    model = tiny_model(family)
    ctxpeft.load(model, tmp_path)
    assert torch.equal(generated(model, IDS, mask), expected)


@pairs
def test_becomes_an_ordinary_adapter(tmp_path, method, family):
    """It saves in our format, loads from it, and trains; a cartridge keeps its frozen tokens."""
    saved(method, family, tmp_path / "peft")
    model = tiny_model(family)
    handle = ctxpeft.load(model, tmp_path / "peft", name="mine", trainable=True)
    out = model(IDS).logits
    handle.save(tmp_path / "ours")
    other = tiny_model(family)
    again = ctxpeft.load(other, tmp_path / "ours")
    assert again.variant == handle.variant
    assert torch.equal(other(IDS).logits, out)
    before = {k: v.clone() for k, v in handle.state_dict().items()}
    optimizer = torch.optim.Adam(handle.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        loss = model(IDS, labels=IDS).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    frozen = dict(handle.named_buffers())
    assert len(frozen) == (4 if method == "cartridge" else 0)
    assert all(torch.equal(frozen[k], before[k]) for k in frozen)
    assert {t.shape[1] for t in frozen.values()} <= {2}


def test_every_layer_has_its_llama_adapter(tmp_path):
    """The last layers in scope, and all of them."""
    for count in (1, 2, 3):
        METHODS["llama-adapter"]["adapter_layers"] = count
        try:
            theirs = saved("llama-adapter", "llama", tmp_path / str(count), num_hidden_layers=3)
        finally:
            METHODS["llama-adapter"]["adapter_layers"] = 1
        model = tiny_model("llama", num_hidden_layers=3)
        handle = ctxpeft.load(model, tmp_path / str(count))
        assert_same_logits(model, theirs, "llama-adapter")
        assert handle.num_parameters() == count * (COUNT * 32 + 1)


def test_mistral_with_a_llama_adapter(tmp_path):
    theirs = saved("llama-adapter", "mistral", tmp_path)
    model = tiny_model("mistral")
    ctxpeft.load(model, tmp_path)
    assert_same_logits(model, theirs, "llama-adapter")


@pytest.mark.parametrize("method", ["prefix-tuning", "prompt-tuning"])
@pytest.mark.parametrize(
    ("family", "window"), [("mistral", 32), ("gemma2", 32), ("gemma3_text", 32), ("gemma3_text", 4)]
)
def test_sliding_windows_are_told(tmp_path, method, family, window):
    """Equal inside the window; a narrow one makes the difference that the warning speaks of."""
    theirs = saved(method, family, tmp_path, sliding_window=window)
    model = tiny_model(family, sliding_window=window)
    with pytest.warns(UserWarning, match=f"a sliding window of {window} tokens"):
        ctxpeft.load(model, tmp_path)
    with contextlib.nullcontext() if window == 32 else pytest.raises(AssertionError):
        assert_same_logits(model, theirs, method)


@pytest.mark.parametrize("rope", [{"rope_type": "dynamic", "factor": 2.0}], ids=["dynamic"])
def test_length_dependent_rope(tmp_path, rope):
    """`auto` shifts the positions there, as PEFT does."""
    options = {"rope_parameters": {"rope_theta": 10000.0, **rope}, "max_position_embeddings": 8}
    theirs = saved("prefix-tuning", "llama", tmp_path, **options)
    model = tiny_model("llama", **options)
    ctxpeft.load(model, tmp_path)
    assert_same_logits(model, theirs, "prefix-tuning")


def refused(folder, match, model=None):
    """One sentence, and the model as it was."""
    model = model or tiny_model()
    before = model(IDS).logits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AdapterError, match=match) as caught:
            ctxpeft.load(model, folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert torch.equal(model(IDS).logits, before)
    assert "_ctxpeft" not in model.__dict__
    assert all(p.requires_grad for p in model.parameters())


@pytest.fixture
def prefix(tmp_path):
    saved("prefix-tuning", "llama", tmp_path / "prefix")
    return tmp_path / "prefix"


@pytest.fixture
def adapter(tmp_path):
    saved("llama-adapter", "llama", tmp_path / "adapter")
    return tmp_path / "adapter"


def reconfigure(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def retensor(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_pickles_are_not_opened(tmp_path, prefix):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "exploded"), "w")

    (prefix / "adapter_model.safetensors").unlink()
    torch.save({"prompt_embeddings": Bomb()}, prefix / "adapter_model.bin")
    refused(prefix, "a pickle, which ctxpeft does not open")
    assert not (tmp_path / "exploded").exists()
    shutil.move(prefix / "adapter_model.bin", prefix / "adapter_model.safetensors")
    refused(prefix, "truncated or not a safetensors file")
    assert not (tmp_path / "exploded").exists()
    (prefix / "adapter_model.safetensors").unlink()
    refused(prefix, "holds no adapter_model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\ud800"])
def test_configurations_that_are_none(prefix, text):
    (prefix / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(prefix, "not a JSON file|expected a JSON object")


@pytest.mark.parametrize("kind", ["LORA", "MULTITASK_PROMPT_TUNING", None, ["PREFIX_TUNING"], "a\nb"])
def test_other_methods(prefix, kind):
    reconfigure(prefix, peft_type=kind)
    refused(prefix, "an HF PEFT adapter of type .*ctxpeft reads ADAPTION_PROMPT, CARTRIDGE")


@pytest.mark.parametrize("changes", [{"task_type": "SEQ_2_SEQ_LM"}, {"num_transformer_submodules": 2}])
def test_other_tasks(prefix, changes):
    reconfigure(prefix, **changes)
    refused(prefix, "adapters of causal language models")


def test_parts_of_the_base(prefix):
    reconfigure(prefix, modules_to_save=["lm_head"])
    refused(prefix, "modules_to_save are parts of the base")


@pytest.mark.parametrize("count", [None, 0, -3, 2.0, True, "5", 10**9])
def test_counts_that_are_none(prefix, count):
    reconfigure(prefix, num_virtual_tokens=count)
    refused(prefix, "'num_virtual_tokens' must be a whole number from 1 to 65,536")


def test_prefixes_of_another_base(prefix):
    reconfigure(prefix, base_model_name_or_path="someone/large\u202e")
    refused(
        prefix,
        r"made for another model \('someone/large\\u202e'\): 'num_layers' is 2 and this model needs 3",
        tiny_model(num_hidden_layers=3),
    )
    refused(prefix, "'num_attention_heads' is 2 and this model needs 4", tiny_model(num_key_value_heads=4))
    refused(prefix, r"has shape \(5, 64\) and this model needs \(5, 128\)", tiny_model(head_dim=16))
    reconfigure(prefix, num_virtual_tokens=4)
    refused(prefix, r"has shape \(5, 64\) and this model needs \(4, 64\)")


def test_prompts_of_another_base(tmp_path):
    saved("prompt-tuning", "llama", tmp_path)
    refused(tmp_path, "'token_dim' is 32 and this model needs 16", tiny_model(hidden_size=16))


def test_llama_adapters_of_another_base(adapter):
    refused(adapter, "holds no tensor 'base_model.model.model.layers.2", tiny_model(num_hidden_layers=3))
    refused(
        adapter,
        "PEFT has LLaMA-Adapter for llama, mistral, gpt2 models only, this is 'qwen3'",
        tiny_model("qwen3"),
    )
    refused(adapter, "adds the bias of the output projection twice", tiny_model(attention_bias=True))
    refused(adapter, "heads that share the width of the model", tiny_model(head_dim=16))
    reconfigure(adapter, adapter_layers=7)
    refused(adapter, "'adapter_layers' is 7 and this model has 2 layers")


def test_where_peft_adds_what_the_heads_read(tmp_path):
    """Through the output projection, but on GPT-2 behind it; other scores than PEFT's are refused there too."""
    for family, projected in (("llama", True), ("mistral", True), ("gpt2", False)):
        saved("llama-adapter", family, tmp_path / family)
        (module,) = ctxpeft.load(tiny_model(family), tmp_path / family).variant.modules
        assert module.projected == projected
    refused(tmp_path / "gpt2", "scores scaled by 1/sqrt", tiny_model("gpt2", scale_attn_weights=False))


def test_tensors_that_do_not_belong(prefix, adapter):
    retensor(prefix, lambda t: t.update(extra=torch.zeros(2)))
    refused(prefix, "unexpected tensor 'extra' beside those of PREFIX_TUNING")
    retensor(prefix, lambda t: (t.clear(), t.update(other=torch.zeros(2))))
    refused(prefix, "holds no tensor 'prompt_embeddings'")
    retensor(adapter, lambda t: t.pop("base_model.model.model.layers.1.self_attn.adaption_gate"))
    refused(adapter, "holds no tensor .*adaption_gate', which ADAPTION_PROMPT on this model needs")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(prefix, value):
    retensor(prefix, lambda t: t["prompt_embeddings"].view(-1)[3].fill_(value))
    refused(prefix, "holds NaN or infinity")


def test_integers(prefix):
    retensor(prefix, lambda t: t.update(prompt_embeddings=t["prompt_embeddings"].int()))
    refused(prefix, "expected a floating-point tensor")


def test_a_bf16_file_is_read_exactly(prefix):
    retensor(prefix, lambda t: t.update(prompt_embeddings=t["prompt_embeddings"].bfloat16()))
    handle = ctxpeft.load(tiny_model(), prefix)
    whole = load_file(prefix / "adapter_model.safetensors")["prompt_embeddings"].float()
    assert sum(float(p.sum()) for p in handle.parameters()) == pytest.approx(float(whole.sum()), abs=1e-3)
    assert {p.dtype for p in handle.parameters()} == {torch.float32}


def test_our_own_files_come_first(prefix):
    """A folder that holds both is ours."""
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0)
    handle.save(prefix)
    assert ctxpeft.load(tiny_model(), prefix).variant.name == "prefix-tuning-plus"
