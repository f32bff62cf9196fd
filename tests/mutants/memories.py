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
        "low-rank factor transposed",
        MATRIX,
        '"bgnw,gwr->bgnr", x, self.down)',
        '"bgnw,grw->bgnr", x, self.down.reshape(len(self.down), self.down.shape[2], -1))',
        algebra("matrix-forms"),
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
