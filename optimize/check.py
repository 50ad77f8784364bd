"""Everything that can be known to be wrong with a study before it costs anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from optimize.budget import Allocation, allocate
from optimize.compile import check_optimizer
from optimize.dataset import Dataset, load_dataset, require_answers
from optimize.search_space import largest_context, widening
from optimize.study_config import StudyConfig, StudyFile, read_study_file
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
    """

    study: StudyConfig
    dataset: Dataset
    spec: LMSpec
    allocation: Allocation


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
    spec = found.lm()
    found.program_and_metric()
    found.optimizers()
    dataset = found.dataset(needs_answers=True)
    if study is not None and spec is not None:
        found.context_fits(study, spec)
    if study is None or spec is None or dataset is None or found.problems:
        raise ProblemsError(found.problems)
    study = change(study.model_copy(update={"dataset": str(dataset.path)}))
    allocation = found.attempt(lambda: _allocate(study, dataset), "budget", "lm_calls")
    if allocation is None:
        raise ProblemsError(found.problems)
    return Checked(study, dataset, spec, allocation)


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
    from optimize.identity import calls_per_question

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

    def lm(self) -> LMSpec | None:
        from programs.lm import parse_lm

        return self.attempt(lambda: parse_lm(self.raw("lm", "local")), "lm")

    def program_and_metric(self) -> None:
        from optimize.metrics import load_metric
        from programs.catalogue import PROGRAMS, load_object

        program = str(self.raw("program", "rag"))
        self.attempt(lambda: load_metric(str(self.raw("metric", "token_f1"))), "metric")
        if program not in PROGRAMS:
            what = f"{program!r} is neither one of {', '.join(PROGRAMS)} nor module:factory"
            self.attempt(lambda: load_object(program, what), "program")

    def optimizers(self) -> None:
        named = self.raw("optimizers", [])
        for position, name in enumerate(named if isinstance(named, list | dict) else []):
            params = (named[name] or {}) if isinstance(named, dict) else {}
            key = name if isinstance(named, dict) else position
            self.attempt(lambda name=name, params=params: check_optimizer(name, params), "optimizers", key)  # type: ignore[misc]

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
