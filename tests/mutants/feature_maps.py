"""Mistakes in the feature maps."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, algebra

MAPS = ("tests/blocks/test_feature_maps.py", "tests/blocks/test_feature_map_laws.py")

MUTANTS = (
    Mutant(
        "elu for elu + 1",
        "blocks/feature_maps/elu_plus_one.py",
        "functional.elu(x) + 1",
        "functional.elu(x)",
        MAPS,
    ),
    Mutant(
        "every kernel called positive",
        "spec/blocks.py",
        'return self.sign == "positive_kernel" or self.is_positive()',
        "return True",
        MAPS,
    ),
    Mutant(
        "a matrix under a map that only has a positive kernel",
        "spec/blocks.py",
        'return self.has_positive_kernel() if mass == "positive_kernel" else self.is_positive()',
        "return self.has_positive_kernel()",
        ("tests/spec/test_legality.py", "-k", "positive_kernel"),
    ),
    Mutant(
        "first-order term of the exponential dropped",
        "blocks/feature_maps/taylor.py",
        "[torch.ones_like(y[..., :1]), y, 2**-0.5 * quadratic(y)]",
        "[torch.ones_like(y[..., :1]), 0 * y, 2**-0.5 * quadratic(y)]",
        algebra("taylor-slots"),
    ),
    Mutant(
        "hedgehog without its other half",
        "blocks/feature_maps/hedgehog.py",
        "torch.cat([y, -y], -1)",
        "torch.cat([y, y], -1)",
        MAPS,
    ),
    Mutant(
        "half the norm forgotten in the random features",
        "blocks/feature_maps/favor_plus.py",
        "y.square().sum(-1, keepdim=True) / 2",
        "0 * y.square().sum(-1, keepdim=True)",
        MAPS,
    ),
    Mutant(
        "random rows of the wrong length",
        "blocks/feature_maps/favor_plus.py",
        "torch.cat(directions, -2) * lengths",
        "torch.cat(directions, -2) * width**0.5",
        MAPS,
    ),
    Mutant(
        "frequencies without their bandwidth",
        "blocks/feature_maps/random_fourier.py",
        "scale = spec.bandwidth * width**0.5",
        "scale = width**0.5",
        MAPS,
    ),
    Mutant(
        "buffers not saved",
        "blocks/feature_maps/favor_plus.py",
        "orthogonal_gaussian(groups, count, width))",
        "orthogonal_gaussian(groups, count, width), persistent=False)",
        MAPS,
    ),
    Mutant(
        "products without their root of two",
        "blocks/feature_maps/grouped.py",
        "2**0.5 * upper_products",
        "upper_products",
        MAPS,
    ),
)
