"""What each backend's mask says is visible, and the log-mass that follows, equal to what sdpa's dense mask says."""

import copy
from itertools import product

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

import ctxpeft
from ctxpeft.blocks.kernels import EFFICIENT, FLASH, kernel_for
from ctxpeft.errors import HostError
from ctxpeft.hosts.content import Content
from ctxpeft.testing.tiny import perturb, tiny_model

from .cases import VARIANTS

WINDOW = 4
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def padded(side):
    mask = torch.ones(2, 9, dtype=torch.long)
    if side != "none":
        mask[0, slice(0, 3) if side == "left" else slice(6, 9)] = 0
    return mask


def masks(backend, padding, window, cache=None, tokens=9):
    """The mask that transformers builds for a backend."""
    config = copy.deepcopy(tiny_model("mistral", sliding_window=WINDOW if window else None).config)
    config._attn_implementation_internal = backend
    build = create_sliding_window_causal_mask if window else create_causal_mask
    return build(
        config=config, inputs_embeds=torch.zeros(2, tokens, 8), attention_mask=padding, past_key_values=cache
    )


def content(backend, mask, query, key, window):
    """The attention call of a module that is causal."""
    module = torch.nn.Module()
    module.is_causal = True
    options = {"sliding_window": WINDOW} if window else {}
    return Content(module, query, key, mask, options, backend)


def draw(tokens, length):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, tokens, 8, generator=generator)
    return query, torch.randn(2, 2, length, 8, generator=generator)


@pytest.mark.parametrize(
    ("backend", "side", "window"),
    [
        *[
            ("flash_attention_2", side, window)
            for side in ("none", "left", "right")
            for window in (False, True)
        ],
        ("flex_attention", "left", True),
    ],
)
def test_whole_prompts(backend, side, window):
    padding, (query, key) = padded(side), draw(9, 9)
    theirs = content(backend, masks(backend, padding, window), query, key, window)
    dense = content("sdpa", masks("sdpa", padding, window), query, key, window)
    seen = padding.bool()[:, None].expand(2, 4, 9)  # a padded query is nobody's: flash leaves it out
    assert torch.allclose(theirs.log_mass()[seen], dense.log_mass()[seen], atol=1e-5)
    ours, wanted = (c.key_count().expand(2, 4, 9)[seen] for c in (theirs, dense))
    assert torch.equal(ours, wanted)


@pytest.mark.parametrize(
    ("backend", "side", "static", "tokens"),
    [
        *[("flash_attention_2", *case) for case in product(("none", "left"), (False, True), (1, 3))],
        ("flex_attention", "left", False, 3),
    ],
)
def test_on_a_cache(backend, side, static, tokens):
    """The last tokens on a cache that holds the others; a static cache has room that nobody has filled.

    Flex on a static cache is left out: transformers 5.23 gives its kernel an offset that the cache moves before the
    kernel reads it, so the base alone is wrong there.
    """
    padding = padded(side)
    config = tiny_model().config
    past = 9 - tokens
    found = []
    for name in (backend, "sdpa"):
        cache = StaticCache(config, max_cache_len=14) if static else DynamicCache(config=config)
        for layer in range(2):
            keys, _ = cache.update(torch.zeros(2, 2, past, 8), torch.zeros(2, 2, past, 8), layer)
        mask = masks(name, padding, False, cache, tokens)
        keys, _ = cache.update(torch.zeros(2, 2, tokens, 8), torch.zeros(2, 2, tokens, 8), 0)
        query, _ = draw(tokens, 9)
        key = torch.randn(keys.shape, generator=torch.Generator().manual_seed(1))
        found.append(content(name, mask, query, key, False).log_mass())
    assert torch.allclose(*found, atol=1e-5)


def test_packed_rows_are_refused():
    query, key = draw(9, 9)
    call = content("flash_attention_2", None, query, key, False)
    call.options["cu_seq_lens_q"] = torch.tensor([0, 4, 9])
    with pytest.raises(HostError, match="packed rows"):
        call.log_mass()


@pytest.mark.parametrize(("family", "variant"), [("mistral", "mixed"), ("gemma2", "prefix-tuning")])
def test_flex_equals_eager_on_the_cpu(family, variant):
    """BlockMasks, windows and softcap; the kernel is torch's own on the CPU, forward only."""
    widths = {"head_dim": 16, "hidden_size": 64, "num_attention_heads": 4}
    model = tiny_model(family, **widths)
    perturb(ctxpeft.attach(model, VARIANTS[variant], seed=0))
    ids = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = padded("left")
    call = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
    logits = {}
    for backend in ("eager", "flex_attention"):
        model.set_attn_implementation(backend)
        with torch.no_grad():
            logits[backend] = model(ids, **call).logits[mask.bool()]
    assert torch.allclose(logits["eager"], logits["flex_attention"], atol=1e-3)


@pytest.mark.parametrize("kernel", [FLASH, EFFICIENT], ids=["flash", "efficient"])
@pytest.mark.parametrize("tokens", [1, 16])
def test_cuda_kernels_take_and_give_the_shapes(kernel, tokens):
    """On the meta device: the arguments fit the operators of this torch, forward and backward."""
    dtype = torch.bfloat16
    query = torch.empty(2, 4, tokens, 64, device="meta", dtype=dtype)
    key, value = (torch.empty(2, 4, 16, 64, device="meta", dtype=dtype) for _ in "kv")
    mask = torch.empty(2, 1, tokens, 16, device="meta", dtype=dtype) if kernel is EFFICIENT else None
    o, mass, rest = kernel.forward(query, key, value, mask, False, 0.1)
    assert (o.shape, mass.shape) == (query.shape, query.shape[:3])
    grads = kernel.backward(torch.empty_like(o), (query, key, value, mask), o, mass, rest, False, 0.1)
    assert [g.shape for g in grads] == [query.shape, key.shape, value.shape]


def test_which_kernel_serves_on_cuda():
    device = torch.device("cuda")
    assert kernel_for(device, torch.bfloat16, 64, 16, False) is FLASH
    assert kernel_for(device, torch.float32, 64, 16, False) is EFFICIENT
    assert kernel_for(device, torch.bfloat16, 64, 16, True) is EFFICIENT
    assert kernel_for(device, torch.bfloat16, 64, 9, True) is None
    assert kernel_for(device, torch.bfloat16, 12, 16, False) is None


@CUDA
@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "masked"), [("float32", False), ("float32", True), ("bfloat16", False)])
def test_cuda_values_and_gradients(dtype, masked):
    """Flash and memory-efficient kernels against the score matrix, gradients of o and of L together."""
    from ctxpeft.hosts.fused import attention_with_mass

    kind = getattr(torch, dtype)
    torch.manual_seed(0)
    leaves = [torch.randn(2, 4, 16, 64, device="cuda", dtype=kind, requires_grad=True) for _ in range(3)]
    visible = torch.ones(16, 16, dtype=torch.bool, device="cuda").tril()[None, None]
    if masked:
        visible = visible & (torch.arange(16, device="cuda") >= 2)
    o, mass = attention_with_mass(*leaves, visible, visible if masked else None, not masked, 0.125)
    q, k, v = (t.double() for t in leaves)
    score = (0.125 * q @ k.transpose(2, 3)).masked_fill(~visible, -torch.inf)
    naive = torch.nan_to_num(torch.softmax(score, -1)) @ v, torch.logsumexp(score, -1)
    seen = visible.any(-1).expand(2, 4, 16)
    tolerance = 1e-4 if kind == torch.float32 else 3e-2
    assert torch.allclose(o.double()[seen], naive[0][seen], atol=tolerance)
    assert torch.allclose(mass.double()[seen], naive[1][seen], atol=tolerance)
    weights = [torch.randn_like(t[seen]) for t in naive]
    ours = torch.autograd.grad(
        sum((t.double()[seen] * w).sum() for t, w in zip((o, mass), weights, strict=True)), leaves
    )
    wanted = torch.autograd.grad(
        sum((t[seen] * w).sum() for t, w in zip(naive, weights, strict=True)), leaves
    )
    for a, b in zip(ours, wanted, strict=True):
        assert torch.allclose(a.double(), b.double(), atol=10 * tolerance)


@CUDA
@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["sdpa", "flex_attention", "flash_attention_2"])
@pytest.mark.parametrize("variant", ["prefix-tuning", "mixed"])
def test_cuda_backends_equal_eager(backend, variant):
    if backend == "flash_attention_2":
        pytest.importorskip("flash_attn")
    model = tiny_model(head_dim=64, hidden_size=256, num_attention_heads=4).to("cuda", torch.bfloat16)
    ctxpeft.attach(model, VARIANTS[variant], seed=0)
    ids = torch.randint(3, 61, (2, 9), device="cuda")
    mask = padded("left").to("cuda")
    call = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
    found = {}
    for name in ("eager", backend):
        model.set_attn_implementation(name)
        found[name] = model(ids, **call).logits[mask.bool()].float()
    scale = found["eager"].abs().max()
    assert float((found["eager"] - found[backend]).abs().max() / scale) < 0.05
