"""Every law that ctxpeft asks of a feature map and of a gate, on ours."""

from ctxpeft_example.length import Length
from ctxpeft_example.sine import Sine

from ctxpeft.testing.feature_maps import FeatureMapConformance
from ctxpeft.testing.gates import GateConformance


class TestSine(FeatureMapConformance):
    spec = Sine(frequency=3.0)


class TestLength(GateConformance):
    gate = Length(init=0.5)
