"""What is taken away from a study: the winner's prompts and pipeline, usable with this tool, with DSPy, or without."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optimize.dataset import Dataset
from optimize.export_adapter import adapter_source
from optimize.export_text import explain
from optimize.headline import headline
from optimize.outcome import Entry, Outcome
from optimize.study_config import StudyConfig
from programs.config import PipelineConfig
from programs.corpus import find_corpus
from programs.errors import RagwrightError
from programs.index import index_key
from programs.summaries import summarizer_identity

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec

FORMAT = 1
"""Version of the folder's layout; `optimize.exported` reads this one."""

MANIFEST, PIPELINE, PROGRAM = "manifest.json", "pipeline.yaml", "program.json"
COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The rendered prompt of one predictor.

    Attributes:
        predictor: Its name in the program.
        messages: Chat messages with a placeholder `{{name}}` for every input.
        stop: Where a bare completion ends; None for a chat.
    """

    predictor: str
    messages: list[dict[str, Any]]
    stop: str | None


def export_winner(
    outcome: Outcome,
    study: StudyConfig,
    spec: LMSpec,
    dataset: Dataset,
    program: dspy.Module,
    folder: Path,
    overwrite: bool = True,
) -> Path:
    """Write the winner into a folder, which appears whole.

    Args:
        outcome: Has a winner.
        study: The study it comes from.
        spec: The task LM; it holds no key.
        dataset: The data; the export refers to its corpus and does not copy it.
        program: The winner's program with its prompts and demos.
        folder: Where to.
        overwrite: Whether an earlier export there is replaced.

    Raises:
        RagwrightError: The study has no winner, or the folder holds something else.
    """
    if outcome.winner is None:
        raise RagwrightError(f"{outcome.study}: the study has no winner yet; run it to its end first.")
    _check_target(folder, overwrite)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    aside.mkdir(parents=True)
    try:
        _write(aside, outcome, outcome.winner, study, spec, dataset, program)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise RagwrightError(f"{folder}: exists already; name a new folder.")
    if not (folder / MANIFEST).is_file():
        raise RagwrightError(f"{folder}: is no export and is not replaced; name another folder.")


def _write(
    folder: Path,
    outcome: Outcome,
    winner: Entry,
    study: StudyConfig,
    spec: LMSpec,
    dataset: Dataset,
    program: dspy.Module,
) -> None:
    program.save(str(folder / PROGRAM))
    prompts = render_prompts(program, winner.config, spec)
    files = _write_prompts(folder, prompts)
    if winner.config.prompt_format == COMPACT:
        (folder / "compact_adapter.py").write_text(adapter_source(), encoding="utf-8")
    (folder / "prompt.md").write_text(explain(outcome, winner, spec, program, prompts), encoding="utf-8")
    pipeline = yaml.safe_dump(_pipeline(winner.config, study, spec, dataset), sort_keys=False, allow_unicode=True)
    (folder / PIPELINE).write_text(pipeline, encoding="utf-8")
    manifest = {**_manifest(outcome, winner, dataset, spec), "prompts": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def render_prompts(program: dspy.Module, config: PipelineConfig, spec: LMSpec) -> list[Prompt]:
    """What the LM is sent, predictor by predictor."""
    from programs.prompt_format import FORMATS, render

    adapter = FORMATS[config.prompt_format]()
    bare = config.prompt_format == COMPACT and spec.endpoint == "completion"
    prompts = []
    for name, predictor in program.named_predictors():
        signature = predictor.signature
        stop = ("\n\n" if len(signature.output_fields) > 1 else "\n") if bare else None
        prompts.append(Prompt(name, render(adapter, signature, predictor.demos), stop))
    return prompts


def _write_prompts(folder: Path, prompts: list[Prompt]) -> list[dict[str, Any]]:
    """The prompts as files: bare completions as text, chats together as messages."""
    chats = [prompt for prompt in prompts if prompt.stop is None]
    if chats:
        content = [{"predictor": prompt.predictor, "messages": prompt.messages} for prompt in chats]
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / "messages.json").write_text(text + "\n", encoding="utf-8")
    files: list[dict[str, Any]] = []
    for prompt in prompts:
        name = "messages.json"
        if prompt.stop is not None:
            name = "prompt.txt" if len(prompts) == 1 else f"prompt-{prompt.predictor}.txt"
            text = "\n\n".join(message["content"] for message in prompt.messages)
            # No newline at the end: the model goes on where the text ends.
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        files.append({"predictor": prompt.predictor, "file": name, "stop": prompt.stop})
    return files


def _pipeline(config: PipelineConfig, study: StudyConfig, spec: LMSpec, dataset: Dataset) -> dict[str, Any]:
    from programs.remote_lm import public_address

    lm = {name: value for name, value in asdict(spec).items() if value is not None}
    if "api_base" in lm:
        lm["api_base"] = public_address(lm["api_base"])
    return {
        "format": FORMAT,
        "program": study.program,
        "abstain": dataset.abstains,
        "metric": study.metric,
        "pipeline": config.as_params(),
        "lm": lm,
        "dataset": str(dataset.path.resolve()),
        "corpus": {"path": str(find_corpus(dataset.path).resolve()), "fingerprint": dataset.corpus.fingerprint},
    }


def _manifest(outcome: Outcome, winner: Entry, dataset: Dataset, spec: LMSpec) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("ragwright", "dspy", "chromadb")},
        "study": {"name": outcome.study, "fingerprint": outcome.fingerprint, "seed": outcome.seed},
        "dataset": {"name": outcome.dataset, "fingerprint": outcome.dataset_fingerprint},
        "corpus": dataset.corpus.fingerprint,
        "index": index_key(dataset.corpus, winner.config, summarizer_identity(spec)),
        "configuration": winner.config.fingerprint(),
        "candidate": winner.candidate,
        "lm": outcome.lm,
        "metric": outcome.metric,
        "verdict": outcome.verdict,
        "result": headline(outcome).sentence,
        "difference": asdict(outcome.difference) if outcome.difference is not None else None,
        "test_openings": outcome.test_openings,
        "served_agreement": outcome.served_agreement,
        "scores": _scores(outcome, winner),
        "warnings": list(outcome.warnings),
    }


def _scores(outcome: Outcome, winner: Entry) -> dict[str, Any]:
    """Phase -> baseline and winner -> the numbers; an interval where the number of independent groups is known."""
    trial = next((e for e in outcome.trials if (e.config, e.candidate) == (winner.config, winner.candidate)), None)
    pairs = {
        "search": (outcome.baseline, trial),
        "confirm": (outcome.finalists[0] if outcome.finalists else None, winner),
        "test": (outcome.test_baseline, outcome.test_winner),
    }

    def numbers(entry: Entry | None) -> Mapping[str, Any] | None:
        return None if entry is None else entry.summary.as_metrics()

    return {phase: {"baseline": numbers(base), "winner": numbers(new)} for phase, (base, new) in pairs.items()}
