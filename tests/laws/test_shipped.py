"""Every shipped variant obeys every law, on grouped queries with RoPE and on GPT-2's fused projections without."""

from functools import cache

from ctxpeft.shipped import shipped_names
from ctxpeft.spec.load import load_variant
from ctxpeft.testing.laws import HostLaws, SpecLaws
from ctxpeft.testing.tiny import TinyTokenizer, tiny_model

VARIANTS = shipped_names("variants")
OURS = [name for name in VARIANTS if load_variant(name).peft is None]
lent = cache(tiny_model)


class TestSpecs(SpecLaws):
    variants = VARIANTS


class Shipped(HostLaws):
    def tokenizer(self):
        return TinyTokenizer()


class TestOnLlama(Shipped):
    """Laws leave the model as they found it, so one model serves them all."""

    variants = VARIANTS

    def model(self):
        return lent("llama")


class TestOnGpt2(Shipped):
    """The target modules of the wrapped HF PEFT tuners do not exist there."""

    variants = OURS

    def model(self):
        return lent("gpt2")


class TestCountsOnThreeLayers(Shipped):
    variants = VARIANTS
    laws = ("counts-its-parameters",)

    def model(self):
        return lent("llama", num_hidden_layers=3)


class TestInBfloat16(Shipped):
    """Single-precision memories in a half-precision host."""

    variants = OURS
    laws = (
        "identity-at-init",
        "memories-stay-single-precision",
        "detach-restores-the-base",
        "saves-and-loads",
    )

    def model(self):
        return _half("llama")


@cache
def _half(family):
    return tiny_model(family).bfloat16()
