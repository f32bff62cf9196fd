"""The deliberate mistakes of `tests/mutation.py`, a file an area: at least one for every fast path."""

from __future__ import annotations

from tests.mutants import adapters, content, feature_maps, memories, merge, module, seam, slots
from tests.mutants.mutant import Mutant

AREAS = (merge, module, slots, memories, feature_maps, content, seam, adapters)
MUTANTS: tuple[Mutant, ...] = tuple(mutant for area in AREAS for mutant in area.MUTANTS)
