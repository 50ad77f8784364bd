"""The search: Optuna over configuration and candidate, resumable at any moment."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optimize.candidate import Candidate
from optimize.outcome import Entry
from optimize.search_space import choose, distributions, seeded_sampler
from optimize.workbench import Workbench
from programs.config import fingerprint

if TYPE_CHECKING:
    import optuna

STALE_LIMIT = 40
"""So many points in a row that were tried before mean that the sampler has nothing new."""


def search(
    bench: Workbench,
    candidates: Mapping[str, Candidate],
    affords: Callable[[], bool],
    on_entry: Callable[[Entry], None],
    shortlist: Sequence[Mapping[str, Any]] = (),
) -> list[Entry]:
    """Score points of the space on the search examples until the budget ends or nothing new is found.

    Args:
        bench: Scores a point.
        candidates: The compiled candidates by id.
        affords: Whether one more trial may begin.
        on_entry: Hears of every trial as it is finished, those of an earlier process first.
        shortlist: Parameters of points to begin with; what they leave open, the sampler chooses.

    Returns:
        All trials, in order. A point that was tried before is told to the sampler again, but not scored again.
    """
    study = _open_study(bench, list(candidates))
    open_params = distributions(bench.study.space, list(candidates))
    for point in shortlist:
        study.enqueue_trial({name: value for name, value in point.items() if name in open_params}, skip_if_exists=True)
    entries = _Entries(on_entry)
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and "unit" in trial.user_attrs:
            _, entry = _score(bench, candidates, study, trial.number, trial._trial_id)
            entries.add(entry)
    stale = 0
    limit = bench.study.trials
    while stale < STALE_LIMIT and (limit is None or len(entries.all) < limit):
        if not affords():
            break
        stale = 0 if _next_trial(bench, candidates, study, entries) else stale + 1
    return entries.all


class _Entries:
    """Trials so far, and which points they are."""

    def __init__(self, on_entry: Callable[[Entry], None]) -> None:
        self.all: list[Entry] = []
        self._on_entry = on_entry

    def add(self, entry: Entry) -> None:
        self.all.append(entry)
        self._on_entry(entry)

    def find(self, point: tuple[str, str]) -> Entry | None:
        return next((e for e in self.all if (e.config.fingerprint(), e.candidate) == point), None)


def _open_study(bench: Workbench, candidates: list[str]) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # A categorical's choices cannot change within one Optuna study: another space is another study in the same file.
    space = {name: repr(distribution) for name, distribution in distributions(bench.study.space, candidates).items()}
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(bench.run.journal))),
        study_name=f"{bench.study.name}-{fingerprint(space)}",
        direction="maximize",
        load_if_exists=True,
    )


def _next_trial(bench: Workbench, candidates: Mapping[str, Candidate], study: optuna.Study, entries: _Entries) -> bool:
    """Score one more point; False where it was tried before."""
    import optuna
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = seeded_sampler(bench.study.sampler, bench.study.seed)
        # A trial that a killed process left behind is taken up under its own number, so that the numbers, and with
        # them the seeds, are those of an uninterrupted study.
        left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        trial = optuna.trial.Trial(study, left[0]._trial_id) if left else study.ask()
        config, candidate = choose(trial, bench.study.space, list(candidates))
    earlier = entries.find((config.fingerprint(), candidate))
    if earlier is not None:
        trial.set_user_attr("repeats", earlier.unit)
        _tell(study, trial.number, earlier)
        return False
    unit, entry = _score(bench, candidates, study, trial.number, trial._trial_id)
    trial.set_user_attr("unit", unit)
    _tell(study, trial.number, entry)
    entries.add(entry)
    return True


def _score(
    bench: Workbench, candidates: Mapping[str, Candidate], study: optuna.Study, number: int, trial_id: int
) -> tuple[str, Entry]:
    import optuna

    config, candidate = choose(optuna.trial.Trial(study, trial_id), bench.study.space, list(candidates))
    unit = f"trial-{number:04d}"
    entry = bench.evaluate(unit, "search", config, candidates[candidate], bench.allocation.search)
    return unit, entry


def _tell(study: optuna.Study, number: int, entry: Entry) -> None:
    """Tell the score; a trial of which too much failed has none and cannot win."""
    from optuna.trial import TrialState

    if entry.summary.valid:
        study.tell(number, entry.summary.score)
    else:
        study.tell(number, state=TrialState.FAIL)
