"""The fingerprint sees the method and nothing else."""

from __future__ import annotations

from ctxpeft.spec.load import load_variant
from ctxpeft.spec.variant import Variant
from ctxpeft.testing.laws.law import spec_law

_OTHERWISE = {
    "name": "other",
    "title": "another title",
    "source": "arXiv:0000.00000",
    "regime": "any",
    "differs": "in words",
    "training": {"learning_rate": 0.123, "warmup_ratio": 0.5, "weight_decay": 0.25},
}


@spec_law(equation="fp(v) = fp(v with other words); fp([A, B]) = fp([B, A]) ⇔ A = B", source="the spec")
def fingerprint_is_the_method(variant: Variant) -> None:
    """Names, titles, sources and training hints do not enter the fingerprint; the modules and their order do."""
    data = variant.to_dict()
    assert load_variant({**data, **_OTHERWISE}).fingerprint() == variant.fingerprint()
    if variant.modules:
        twice = load_variant({**data, "modules": [*data["modules"], data["modules"][0]]})
        assert twice.fingerprint() != variant.fingerprint()
        turned = load_variant({**data, "modules": data["modules"][::-1]})
        modules = [load_variant({**data, "modules": [m]}).fingerprint() for m in data["modules"]]
        assert (turned.fingerprint() == variant.fingerprint()) == (modules == modules[::-1])
