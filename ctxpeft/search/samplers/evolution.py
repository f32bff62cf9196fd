"""NSGA-II for a conditional space."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class Evolution(NSGAIISampler):  # type: ignore[misc]
    """Optuna's NSGA-II (Deb et al., 2002) whose children inherit dimension by dimension.

    Optuna crosses the dimensions that all trials share: in a conditional space almost none, and none at all beside
    anchors, which ask no question. Here each question takes the answer of one of two parents that were asked it too,
    or a new one with a probability of one over the number of answers of a parent. Generations, elites and crowding are
    Optuna's; anchors belong to no generation.

    Args:
        population: completed designs a generation.
        seed: of the parents and the mutations.
    """

    def __init__(self, population: int, seed: int) -> None:
        super().__init__(population_size=population, seed=seed)
        self._random = random.Random(seed)
        self._parents: list[FrozenTrial] = []

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """None: every question is answered when it is asked."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose the parents, each the better of two of the elite."""
        generation = self.get_trial_generation(study, trial)
        elite = sorted(self.get_parent_population(study, generation), key=lambda t: t.number)
        self._parents = [self._fitter(study, elite) for _ in range(2)] if elite else []
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parent's answer, or a new one."""
        asked = [p for p in self._parents if p.distributions.get(param_name) == param_distribution]
        answers = max((len(p.params) for p in self._parents), default=1)
        if not asked or self._random.random() < 1 / answers:
            return super().sample_independent(study, trial, param_name, param_distribution)
        return self._random.choice(asked).params[param_name]

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """The completed designs of a generation; a repeated one counts once."""
        found = super().get_population(study, generation)
        return [t for t in found if t.params and t.user_attrs.get("outcome") == "completed"]

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """The generation of a trial, the next one when the last is full."""
        key = self._get_generation_key()
        known = trial.system_attrs.get(key)
        if known is None:
            last = max((t.system_attrs.get(key, 0) for t in study.get_trials(deepcopy=False)), default=0)
            known = last + (len(self.get_population(study, last)) >= (self.population_size or 0))
            study._storage.set_trial_system_attr(trial._trial_id, key, known)
        return int(known)

    def _fitter(self, study: optuna.Study, elite: list[FrozenTrial]) -> FrozenTrial:
        """Of two, the one that breaks the constraints by less, else the one that is not dominated by the other."""
        a, b = self._random.choice(elite), self._random.choice(elite)
        if _excess(a) != _excess(b):
            return min(a, b, key=_excess)
        return b if _dominates(b, a, study.directions) else a


def _excess(trial: FrozenTrial) -> float:
    """By how much a trial breaks its constraints, all together."""
    return float(sum(trial.user_attrs.get("violations", {}).values()))


def _dominates(one: FrozenTrial, other: FrozenTrial, directions: list[StudyDirection]) -> bool:
    signs = [1 if d == StudyDirection.MINIMIZE else -1 for d in directions]
    pairs = [(s * x, s * y) for s, x, y in zip(signs, one.values, other.values, strict=True)]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)
