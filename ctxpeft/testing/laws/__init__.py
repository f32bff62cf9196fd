"""The laws of the algebra, of variants as data and of hosts: a registry, and test classes that run it.

    class TestMyVariant(HostLaws):
        variants = ["my-variant.yaml"]

        def model(self):
            return tiny_model("llama")

`ctxpeft check VARIANT --model M` runs the laws that apply on a model of the user's.
"""

from ctxpeft.testing.laws.classes import AlgebraLaws, HostLaws, SpecLaws
from ctxpeft.testing.laws.law import (
    AlgebraLaw,
    HostLaw,
    Interval,
    Law,
    SpecLaw,
    algebra_law,
    host_law,
    law,
    laws,
    register,
    spec_law,
)
from ctxpeft.testing.laws.size import Size

__all__ = [
    "AlgebraLaw",
    "AlgebraLaws",
    "HostLaw",
    "HostLaws",
    "Interval",
    "Law",
    "Size",
    "SpecLaw",
    "SpecLaws",
    "algebra_law",
    "host_law",
    "law",
    "laws",
    "register",
    "spec_law",
]
