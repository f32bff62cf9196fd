"""Mistakes in the memories that are no slots: matrices, vectors, edits, tables."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, algebra

MATRIX = "blocks/memory/matrix.py"

MUTANTS = (
    Mutant(
        "normaliser may be negative",
        MATRIX,
        "functional.softplus(self.zeta)",
        "self.zeta",
        algebra("ntk-attention"),
    ),
    Mutant(
        "low-rank factors mispaired",
        MATRIX,
        "n = grouped(n, self.matrix)",
        "n = grouped(n, self.matrix.flip(1))",
        algebra("matrix-forms"),
    ),
    Mutant(
        "gradient of the first product alone where the map is computed again",
        "blocks/products.py",
        "functools.reduce(torch.add, back)",
        "next(back)",
        algebra("ntk-attention"),
    ),
    Mutant(
        "outer products of other rows where the map is computed again",
        "blocks/products.py",
        "torch.bmm(x.transpose(1, 2), y)",
        "torch.bmm(x.transpose(1, 2), y.flip(1))",
        algebra("prefix-tuning-plus"),
    ),
    Mutant(
        "groups of a product interleaved",
        "blocks/products.py",
        "x.transpose(0, 1).reshape(groups, batch * count, width)",
        "x.transpose(1, 2).reshape(groups, batch * count, width)",
        algebra("prefix-tuning-plus"),
    ),
    Mutant(
        "diagonal reversed",
        MATRIX,
        "x * self.matrix[:, None]",
        "x * self.matrix[:, None].flip(-1)",
        algebra("matrix-forms"),
    ),
    Mutant(
        "mass of a vector not learned",
        "blocks/memory/vector.py",
        "c = self.log_mass[None, :, None]",
        "c = 0.5 + 0 * self.log_mass[None, :, None]",
        algebra("vector-inside"),
    ),
    Mutant(
        "rows of an edit not orthonormal",
        "blocks/memory/edit.py",
        "rows = (q * sign).transpose(1, 2)",
        "rows = self.free",
        algebra("loreft"),
    ),
    Mutant(
        "positions beyond the table",
        "blocks/memory/positions.py",
        " * (at < len(self.left))[..., None]",
        "",
        algebra("offsets-by-position"),
    ),
    Mutant(
        "delta rule that forgets what is there",
        "blocks/inits/demonstrations.py",
        'value[:, j] - torch.einsum("hw,hwv->hv", feature[:, j], matrix)',
        "value[:, j]",
        algebra("delta-rule"),
    ),
    Mutant(
        "mean instead of the sum of demonstrations",
        "blocks/inits/demonstrations.py",
        "mean_of_groups(module, feature.sum(1))",
        "mean_of_groups(module, feature.mean(1))",
        algebra("compiled-demonstrations"),
    ),
)
