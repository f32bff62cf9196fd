"""Every installed feature map conforms, with its defaults and with its options."""

import pytest

from ctxpeft.spec.registry import kinds
from ctxpeft.testing.feature_maps import FeatureMapConformance

OPTIONS = {
    **{
        f"projection-{activation}-{'bias' if bias else 'plain'}": (
            "projection",
            {"width": 5, "activation": activation, "bias": bias},
        )
        for activation in ("relu", "gelu", "silu", "tanh")
        for bias in (True, False)
    },
    "softmax-both": ("softmax", {"both": True}),
    "dpfp-3": ("dpfp", {"nu": 3}),
    "top_k-2": ("top_k", {"k": 2}),
    "favor_plus-less-than-one-block": ("favor_plus", {"width": 4}),
    "favor_plus-blocks-and-a-rest": ("favor_plus", {"width": 16}),
    "random_fourier-narrow": ("random_fourier", {"width": 1, "bandwidth": 0.5}),
    "taylor-unprojected": ("taylor", {"width": None}),
    "taylor-1": ("taylor", {"width": 1}),
    "rebased-unprojected": ("rebased", {"width": None}),
    "rebased-3": ("rebased", {"width": 3}),
    "outer-1": ("outer", {"width": 1}),
    "rbf-cold": ("rbf", {"width": 5, "temperature": 0.3}),
    **{
        f"film-{base['kind']}": ("film", {"base": base})
        for base in (
            {"kind": "one"},
            {"kind": "favor_plus", "width": 8},
            {"kind": "hedgehog"},
            {"kind": "projection", "width": 5},
            {"kind": "taylor", "width": 2},
        )
    },
}


@pytest.mark.parametrize("kind", sorted(kinds("feature_map")))
class TestFeatureMaps(FeatureMapConformance):
    @pytest.fixture(autouse=True)
    def _spec(self, kind):
        self.spec = kinds("feature_map")[kind]()


@pytest.mark.parametrize("name", list(OPTIONS))
class TestOptions(FeatureMapConformance):
    @pytest.fixture(autouse=True)
    def _spec(self, name):
        kind, options = OPTIONS[name]
        self.spec = kinds("feature_map")[kind](**options)


def test_who_is_positive():
    """Whose features can be normalised and compete inside, with default options."""
    positive = {kind for kind, cls in kinds("feature_map").items() if cls().is_positive()}
    assert positive == {
        "dpfp",
        "elu_plus_one",
        "exp",
        "favor_plus",
        "hedgehog",
        "one",
        "rbf",
        "relu",
        "sigmoid",
        "softmax",
        "square",
        "squared_relu",
    }


def test_who_has_a_positive_kernel():
    """Under whose kernel slots can be normalised and compete inside although features are signed."""
    found = {kind for kind, cls in kinds("feature_map").items() if cls().has_positive_kernel()}
    assert found - {kind for kind, cls in kinds("feature_map").items() if cls().is_positive()} == {
        "rebased",
        "taylor",
    }
