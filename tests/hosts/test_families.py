"""The laws of a host, on a tiny random model of every family in the table."""

from functools import cache

import pytest
import torch

import ctxpeft
from ctxpeft.testing.laws import HostLaws
from ctxpeft.testing.tiny import FAMILIES, perturb, tiny_model

from .cases import INSIDE, VARIANTS

families = pytest.mark.parametrize("family", sorted(FAMILIES))
lent = cache(tiny_model)
TOKENS = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(1))


def gated(placement):
    """A gate that reads the content's log-mass, where a padded query has none."""
    gate = {"kind": "token", "source": "log_mass", "activation": "exp"}
    module = {"placement": placement, "memory": {"kind": "slots", "count": 2}, "gate": gate}
    if placement == "inside":
        module |= {"merge": "compete_length", "gate": {**gate, "on": "mass"}}
    return {"name": f"gated-{placement}", "modules": [module]}


class OnEveryFamily(HostLaws):
    @pytest.fixture(autouse=True)
    def _family(self, family):
        self.family = family

    def model(self):
        return lent(self.family)


@families
class TestFamilies(OnEveryFamily):
    """Variants that between them use every site, source and merge obey every law."""

    variants = tuple(VARIANTS.values())


@families
class TestPaddedQueries(OnEveryFamily):
    variants = (gated("inside"), gated("outside"))
    laws = ("padded-queries-stay-finite",)


@families
class TestSlotsAreACache(OnEveryFamily):
    """A window that would push the slots out of transformers' cache is opened first."""

    variants = (INSIDE,)
    laws = ("slots-are-a-cache",)

    def model(self):
        windows = {"mistral": None, "gemma2": 64, "gemma3_text": 64}
        options = {"sliding_window": windows[self.family]} if self.family in windows else {}
        return lent(self.family, **options)


@families
def test_the_recomputed_log_mass_equals_the_kernels(family, monkeypatch):
    """Where no kernel tells L it is recomputed from the scores: the same values and gradients."""
    model, ids = tiny_model(family), TOKENS
    handle = ctxpeft.attach(model, VARIANTS["mixed"], seed=0)
    perturb(handle)
    padded = torch.ones_like(ids)
    padded[0, 6:] = 0
    seen = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr("ctxpeft.hosts.seam.applicable", lambda *_: False)
        for mask in (None, padded):
            for parameter in handle.parameters():
                parameter.grad = None
            out = model(ids, attention_mask=mask, labels=ids)
            out.loss.backward()
            seen.append([out.logits.detach(), *(p.grad for p in handle.parameters())])
    for kernel, scores in zip(seen[:2], seen[2:], strict=True):
        assert all(torch.allclose(a, b, atol=2e-4, rtol=1e-3) for a, b in zip(kernel, scores, strict=True))
