"""Everything that can be known to be wrong with a study before it costs anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optimize.compiling.table import check_optimizer
from optimize.data.dataset import Dataset, load_dataset, require_answers
from optimize.settings.space import largest_context, widening
from optimize.settings.study import StudyConfig, StudyFile, read_study_file
from optimize.studies.allocation import Allocation, allocate
from programs.errors import Problem, ProblemsError, RagwrightError

if TYPE_CHECKING:
    from programs.lm import LMSpec

T = TypeVar("T")

PROMPT_ROOM = 256
"""Tokens left for the question, the instructions and the answer beside the passages."""


@dataclass(frozen=True)
class Checked:
    """A study that can be run.

    Attributes:
        study: The study, its data set's folder made absolute.
        dataset: Its data.
        spec: Its task LM.
        allocation: Which examples each phase will use.
        reflection: The LM that writes instructions; None: the task LM.
        judge: The LM that judges; None where none is named.
    """

    study: StudyConfig
    dataset: Dataset
    spec: LMSpec
    allocation: Allocation
    reflection: LMSpec | None = None
    judge: LMSpec | None = None


def check_study(file: Path, change: Callable[[StudyConfig], StudyConfig] = lambda study: study) -> Checked:
    """Read a study file with its data and check all of it.

    Args:
        file: The study file.
        change: Applied to the study before it is checked against its data, such as what a command line says instead.

    Raises:
        ProblemsError: Every problem of the file and of its data, each with its place.
        RagwrightError: The file is missing or not YAML.
    """
    source = read_study_file(file)
    found = _Findings(source)
    study = found.attempt(source.validate)
    spec, reflection, judge = found.lm("lm", "local"), found.lm("reflection_lm"), found.lm("judge_lm")
    found.program()
    dataset = found.dataset(needs_answers=False)
    found.metrics(dataset)
    found.optimizers(dataset, reflection)
    found.sampler()
    found.repeats(spec)
    if study is not None and spec is not None:
        found.context_fits(study, spec)
    if study is None or spec is None or dataset is None or found.problems:
        raise ProblemsError(found.problems)
    study = change(study.model_copy(update={"dataset": str(dataset.path)}))
    allocation = found.attempt(lambda: _allocate(study, dataset), "budget", "lm_calls")
    if allocation is None:
        raise ProblemsError(found.problems)
    return Checked(study, dataset, spec, allocation, reflection, judge)


def check_retrieval(
    file: Path, change: Callable[[StudyConfig], StudyConfig] = lambda study: study
) -> tuple[StudyConfig, Dataset]:
    """Read a study file with its data and check what concerns retrieval: no LM, no budget, no known answers needed.

    Args:
        file: The study file.
        change: Applied to the study.

    Raises:
        ProblemsError: Every problem of the file and of its data, each with its place.
        RagwrightError: The file is missing or not YAML.
    """
    source = read_study_file(file)
    found = _Findings(source)
    study, dataset = found.attempt(source.validate), found.dataset(needs_answers=False)
    if study is None or dataset is None:
        raise ProblemsError(found.problems)
    return change(study.model_copy(update={"dataset": str(dataset.path)})), dataset


def _baseline_context(study: StudyConfig) -> int:
    return study.baseline.chunk_size * study.baseline.top_k * widening(study.baseline.expansion)


def _allocate(study: StudyConfig, dataset: Dataset) -> Allocation:
    from optimize.studies.prices import calls_per_question

    return allocate(study, dataset, calls_per_question(study, dataset))


class _Findings:
    """Collects problems part by part, so that one part's mistake hides no other's."""

    def __init__(self, source: StudyFile) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def attempt(self, work: Callable[[], T], *keys: str | int) -> T | None:
        """The work's result, or None with what went wrong noted as a problem of this place in the file."""
        try:
            return work()
        except ProblemsError as error:
            self.problems += error.problems
        except RagwrightError as error:
            message = str(error).removeprefix(f"{'.'.join(map(str, keys))}: ").removeprefix(f"{keys[0]}: ")
            self.problems.append(Problem(self.source.place(*keys), message.rstrip(".")))
        return None

    def raw(self, key: str, default: Any) -> Any:
        return self.source.content.get(key, default)

    def lm(self, key: str, default: str | None = None) -> LMSpec | None:
        from programs.lm import parse_lm

        named = self.raw(key, default)
        return None if named is None else self.attempt(lambda: parse_lm(named), key)

    def metrics(self, dataset: Dataset | None) -> None:
        """The metric and the guards can be scored with what there is."""
        from optimize.metrics.table import check_metrics

        judge_named = self.raw("judge_lm", None) is not None
        metric, guards = self.raw("metric", "token_f1"), self.raw("guards", None) or {}
        for key, spec in [("metric", metric), *(("guards", name) for name in guards if isinstance(guards, dict))]:
            if isinstance(spec, str | dict):

                def place(name: str, key: str = key, spec: Any = spec) -> str:
                    return (
                        self.source.place(key, name)
                        if key == "guards" or isinstance(spec, dict)
                        else self.source.place(key)
                    )

                self.problems += check_metrics(spec, dataset, judge_named, place)

    def sampler(self) -> None:
        from optimize.settings.space import whole_sampler

        if self.raw("sampler", "tpe") == "gp":
            self.attempt(lambda: whole_sampler("gp", 0, 0), "sampler")

    def repeats(self, spec: LMSpec | None) -> None:
        repeats = self.raw("repeats", 1)
        if spec is not None and spec.temperature == 0 and isinstance(repeats, int) and repeats > 1:
            message = "at temperature 0 every repeat is the same answer"
            mend = "set lm.temperature above 0, or repeats: 1"
            self.problems.append(Problem(self.source.place("repeats"), message, mend))

    def program(self) -> None:
        from programs.catalogue import PROGRAMS, load_object

        program = str(self.raw("program", "rag"))
        if program not in PROGRAMS:
            what = f"{program!r} is neither one of {', '.join(PROGRAMS)} nor module:factory"
            self.attempt(lambda: load_object(program, what), "program")

    def optimizers(self, dataset: Dataset | None, reflection: LMSpec | None) -> None:
        named = self.raw("optimizers", [])
        train = None if dataset is None else sum(example.answers is not None for example in dataset.train)
        for position, name in enumerate(named if isinstance(named, list | dict) else []):
            params = (named[name] or {}) if isinstance(named, dict) else {}
            key = name if isinstance(named, dict) else position
            self.attempt(partial(check_optimizer, name, params, train, reflection), "optimizers", key)

    def dataset(self, *, needs_answers: bool) -> Dataset | None:
        folder = self.raw("dataset", None)
        if not isinstance(folder, str):
            return None
        dataset = self.attempt(lambda: load_dataset((self.source.path.parent / folder).resolve()), "dataset")
        if dataset is not None and needs_answers:
            self.attempt(lambda: require_answers(dataset), "dataset")
        return dataset

    def context_fits(self, study: StudyConfig, spec: LMSpec) -> None:
        """The passages alone must leave room in the LM's context; demos come on top and are checked by the LM."""
        if spec.context_length is None:
            return
        most = max(largest_context(study.space), _baseline_context(study))
        if most + PROMPT_ROOM > spec.context_length:
            message = f"chunk_size x top_k reaches {most} tokens, and the LM's context holds {spec.context_length}"
            self.problems.append(Problem(self.source.place("space"), message, "take smaller chunks or a smaller top_k"))
