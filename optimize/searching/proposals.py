"""What Optuna proposes to try next, told what is believed of every point so far."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.settings.space import choose, distributions, fixed_params, whole_sampler
from optimize.settings.study import Space
from programs.config import PipelineConfig

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True)
class Told:
    """A point as Optuna hears of it.

    Attributes:
        params: Of the space, and the candidate's id.
        values: The first objective, higher is better, then what is minimized.
        unit: Name of its evaluation.
        steps: Mean score after so many questions.
        whole: Whether all search questions were asked.
    """

    params: Mapping[str, Any]
    values: tuple[float, ...]
    unit: str
    steps: Mapping[int, float]
    whole: bool


class Proposals:
    """Asks an Optuna sampler for points.

    Optuna's study is made anew from all points at each question: a value that Optuna was told cannot be taken back,
    and what is believed of a point changes with every answer, as do the candidates to choose from. The sampler is
    seeded by the study's seed and the number of the question, so a study that was interrupted goes on instead of
    repeating itself.

    Args:
        space: What may be chosen.
        sampler: Name of the sampler.
        seed: The study's.
        minimized: Number of objectives beside the first.
    """

    def __init__(self, space: Space, sampler: str, seed: int, minimized: int = 0) -> None:
        from optuna.study import StudyDirection

        self._space, self._sampler, self._seed = space, sampler, seed
        self._directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * minimized]
        self._asked = 0

    def ask(self, told: Sequence[Told], candidates: Sequence[str]) -> tuple[dict[str, Any], PipelineConfig, str]:
        """The parameters of the space that the sampler chooses, as a canonical configuration, and a candidate's id."""
        with warnings.catch_warnings():
            # What Optuna calls experimental.
            warnings.simplefilter("ignore")
            study = self._study(told, candidates)
            study.sampler = whole_sampler(self._sampler, self._seed, self._asked)
            self._asked += 1
            config, candidate = choose(trial := study.ask(), self._space, candidates)
        return fixed_params(self._space) | trial.params, config, candidate

    def keep(self, file: Path, name: str, told: Sequence[Told], candidates: Sequence[str]) -> None:
        """Write the points as an Optuna journal, for its dashboard; a study of that name there is replaced."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(file)))
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        kept = optuna.create_study(storage=storage, study_name=name, directions=self._directions)
        kept.add_trials(self._trials(told, candidates, final=True))

    def _study(self, told: Sequence[Told], candidates: Sequence[str]) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=self._directions)
        study.add_trials(self._trials(told, candidates, final=False))
        return study

    def _trials(
        self, told: Sequence[Told], candidates: Sequence[str], *, final: bool
    ) -> list[optuna.trial.FrozenTrial]:
        """Optuna's trials; for the sampler all are complete, since what is believed of them is about all questions."""
        from optuna.trial import TrialState, create_trial

        space = distributions(self._space, candidates)
        one = len(self._directions) == 1
        return [
            create_trial(
                state=TrialState.COMPLETE if point.whole or not (final and one) else TrialState.PRUNED,
                params={name: point.params[name] for name in space},
                distributions=space,
                user_attrs={"unit": point.unit},
                values=list(point.values),
                intermediate_values=dict(point.steps) if one else None,
            )
            for point in told
        ]
