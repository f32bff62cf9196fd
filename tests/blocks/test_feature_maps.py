"""Every installed feature map conforms."""

import pytest

from ctxpeft.spec.registry import kinds
from ctxpeft.testing.feature_maps import FeatureMapConformance


@pytest.mark.parametrize("kind", sorted(kinds("feature_map")))
class TestFeatureMaps(FeatureMapConformance):
    @pytest.fixture(autouse=True)
    def _spec(self, kind):
        self.spec = kinds("feature_map")[kind]()


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
class TestProjectionOptions(FeatureMapConformance):
    @pytest.fixture(autouse=True)
    def _spec(self, activation, bias):
        self.spec = kinds("feature_map")["projection"](width=5, activation=activation, bias=bias)

    def test_sign_is_declared(self):
        """The map is declared signed for all activations, which holds for none of them to be used inside."""
        assert self.spec.sign == "signed"
