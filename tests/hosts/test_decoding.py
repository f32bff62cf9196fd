"""Generation with an adapter: every cache, every strategy, equal to what full forward passes say."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

import ctxpeft
from ctxpeft.testing.tiny import perturb, tiny_model

from .cases import VARIANTS

FAMILIES = ("llama", "mistral", "gemma3_text", "gpt2")
NEW = 6
families = pytest.mark.parametrize("family", FAMILIES)
variants = pytest.mark.parametrize("variant", ["prefix-tuning", "mixed", "wide"])
pytestmark = pytest.mark.filterwarnings("ignore")


def adapted(family, variant, seed=0):
    model = tiny_model(family)
    perturb(ctxpeft.attach(model, VARIANTS.get(variant, variant), seed=0), seed=seed)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def prompts(padding="left"):
    """Two prompts of 6 and 9 tokens, padded."""
    ids = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    ids[0, :3] = 0
    if padding == "right":
        ids[0] = ids[0].roll(-3)
    return ids, (ids != 0).long()


def positions(mask):
    return (mask.cumsum(1) - 1).clamp_min(0)


def forced(model, ids, mask, steps=NEW):
    """Greedy decoding by full forward passes without a cache."""
    for _ in range(steps):
        logits = model(ids, attention_mask=mask, position_ids=positions(mask), use_cache=False).logits[:, -1]
        top = logits.topk(2).values
        assert bool((top[:, 0] - top[:, 1] > 1e-4).all()), "a tie would make this comparison meaningless"
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
        mask = torch.cat([mask, torch.ones(len(ids), 1, dtype=torch.long)], 1)
    return ids


def generate(model, ids, mask, **options):
    return model.generate(
        ids,
        attention_mask=mask,
        **{"max_new_tokens": NEW, "do_sample": False, "disable_compile": True, **options},
    )


WAYS = {
    "dynamic": {"cache_implementation": "dynamic"},
    "static": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 4},
    "chunked prefill, static": {"prefill_chunk_size": 4, "cache_implementation": "static"},
}


@families
@variants
@pytest.mark.parametrize("way", WAYS)
def test_caches(family, variant, way):
    """Mistral and Gemma 3 have windows of 4: their dynamic and static caches evict what the window has passed."""
    model = adapted(family, variant)
    ids, mask = prompts()
    assert torch.equal(generate(model, ids, mask, **WAYS[way]), forced(model, ids, mask))


@families
@variants
def test_assisted_decoding(family, variant):
    """A draft model and prompt look-up change the number of passes, not the text."""
    model = adapted(family, variant)
    ids, mask = (t[1:] for t in prompts())
    expected = forced(model, ids, mask)
    draft = adapted(family, variant)
    perturb_a_little(draft)
    for options in ({"assistant_model": draft}, {"prompt_lookup_num_tokens": 2}):
        assert torch.equal(generate(model, ids, mask, **options), expected)


def perturb_a_little(model):
    for parameter in model.parameters():
        parameter.data.mul_(1.02)


@families
@variants
def test_beams_score_what_the_model_says(family, variant):
    """The score of the best beam is the mean log-probability of its text under a full forward pass."""
    model = adapted(family, variant)
    ids, mask = prompts()
    found = generate(
        model, ids, mask, num_beams=3, return_dict_in_generate=True, output_scores=True, length_penalty=1.0
    )
    whole = torch.cat([mask, torch.ones(2, NEW, dtype=torch.long)], 1)
    logits = model(found.sequences, attention_mask=whole, position_ids=positions(whole)).logits
    told = torch.log_softmax(logits[:, -NEW - 1 : -1], -1).gather(-1, found.sequences[:, -NEW:, None])
    assert torch.allclose(told[..., 0].mean(1), found.sequences_scores, atol=1e-4)
    greedy = torch.log_softmax(
        model(forced(model, ids, mask), attention_mask=whole, position_ids=positions(whole)).logits[
            :, -NEW - 1 : -1
        ],
        -1,
    )
    assert bool((found.sequences_scores >= greedy.amax(-1).mean(1) - 1e-4).all())


@families
@variants
def test_sampling_draws_from_the_model(family, variant):
    """The processed scores of every step are those of full forward passes over what was drawn."""
    model = adapted(family, variant)
    ids, mask = prompts()
    torch.manual_seed(0)
    found = generate(
        model, ids, mask, do_sample=True, top_k=0, return_dict_in_generate=True, output_logits=True
    )
    whole = torch.cat([mask, torch.ones(2, NEW, dtype=torch.long)], 1)
    logits = model(found.sequences, attention_mask=whole, position_ids=positions(whole)).logits
    assert torch.allclose(torch.stack(found.logits, 1), logits[:, -NEW - 1 : -1], atol=2e-4)
    torch.manual_seed(0)
    assert torch.equal(generate(model, ids, mask, do_sample=True, top_k=0), found.sequences)


@families
@variants
def test_rows_do_not_depend_on_padding(family, variant):
    """A short row in a padded batch generates what it generates alone; right padding in a forward pass too."""
    model = adapted(family, variant)
    ids, mask = prompts()
    alone = generate(model, ids[:1, 3:], mask[:1, 3:])
    assert torch.equal(generate(model, ids, mask)[0, -NEW:], alone[0, -NEW:])
    ids, mask = prompts("right")
    padded = model(ids, attention_mask=mask).logits[0, :6]
    assert torch.allclose(padded, model(ids[:1, :6]).logits[0], atol=2e-4)


@families
@variants
def test_the_backend_may_change_under_an_adapter(family, variant):
    """`set_attn_implementation` after attaching is honoured at once, also in the middle of a cache."""
    model = adapted(family, variant)
    ids, mask = prompts()
    expected = forced(model, ids, mask)
    for backend in ("eager", "sdpa"):
        model.set_attn_implementation(backend)
        assert torch.equal(generate(model, ids, mask), expected)
    cache = DynamicCache(config=model.config)
    whole = model(ids[1:]).logits
    for start, end, backend in ((0, 5, "eager"), (5, 9, "sdpa")):
        model.set_attn_implementation(backend)
        part = model(ids[1:, start:end], past_key_values=cache).logits
        assert torch.allclose(part, whole[:, start:end], atol=2e-4)


@variants
def test_a_cache_holds_content_only(variant):
    """Slots never enter the user's cache: its length is that of the tokens, and a base model may continue it."""
    model = adapted("llama", variant)
    ids, _ = prompts()
    cache = DynamicCache(config=model.config)
    model(ids[1:], past_key_values=cache)
    assert cache.get_seq_length() == 9
    assert {tuple(layer.keys.shape) for layer in cache.layers} == {(1, 2, 9, 8)}
    static = StaticCache(model.config, max_cache_len=9)
    assert torch.allclose(model(ids[1:], past_key_values=static).logits, model(ids[1:]).logits, atol=2e-4)


@pytest.mark.parametrize("way", ["prefill_chunk_size", "prompt_lookup_num_tokens"])
def test_segments_tell_where_passes_do_not_end_with_the_prompt(way):
    """A prompt in chunks and a pass that verifies drafted tokens hold both kinds: `ctxpeft.segments` says which."""
    module = {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}
    variant = {"name": "prompt-only", "modules": [{**module, "scope": {"tokens": "prompt"}}]}
    model = tiny_model()
    perturb(ctxpeft.attach(model, variant, seed=0), std=1.0)
    model.generation_config.eos_token_id = None
    ids, mask = (t[1:] for t in prompts())
    expected = generate(model, ids, mask)
    generated = torch.arange(9 + NEW)[None] >= 9
    with ctxpeft.segments(model, generated):
        assert torch.equal(generate(model, ids, mask, **{way: 3}), expected)
