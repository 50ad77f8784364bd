"""What is taken away from a study: the winner's prompts and pipeline, usable with this tool, with DSPy, or without."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optimize.data.dataset import Dataset
from optimize.evaluation.outcome import Entry, Outcome
from optimize.exporting import fill as export_fill
from optimize.exporting.adapter import adapter_source
from optimize.exporting.record import Prompt, render_prompts, worked_examples
from optimize.exporting.text import explain
from optimize.reporting.headline import finite, headline
from optimize.settings.study import StudyConfig
from programs.config import PipelineConfig
from programs.corpus import find_corpus
from programs.errors import RagwrightError
from programs.index import index_key
from programs.summaries import summarizer_identity

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec

FORMAT = 1
"""Version of the folder's layout; `optimize.exporting.exported` reads this one."""

MANIFEST, PIPELINE, PROGRAM = "manifest.json", "pipeline.yaml", "program.json"
COMPACT = "compact"


def export_winner(
    outcome: Outcome,
    study: StudyConfig,
    spec: LMSpec,
    dataset: Dataset,
    program: dspy.Module,
    folder: Path,
    overwrite: bool = True,
    cache: Path | None = None,
    asked: Collection[str] = (),
) -> Path:
    """Write the winner into a folder, which appears whole. No LM is asked.

    Args:
        outcome: Has a winner.
        study: The study it comes from.
        spec: The task LM; it holds no key.
        dataset: The data; the export refers to its corpus and does not copy it.
        program: The winner's program with its prompts and demos.
        folder: Where to.
        overwrite: Whether an earlier export there is replaced.
        cache: The file of the study's answers, which the worked examples are taken from.
        asked: Ids of questions that the winner has answered, which they are best taken from.

    Raises:
        RagwrightError: The study has no winner, or the folder holds something else.
    """
    if outcome.winner is None:
        raise RagwrightError(f"{outcome.study}: the study has no winner yet; run it to its end first.")
    _check_target(folder, overwrite)
    aside, replaced = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}") for _ in range(2))
    aside.mkdir(parents=True)
    try:
        _write(aside, outcome, outcome.winner, study, spec, dataset, program, cache, asked)
        if folder.exists():
            # Not removed in place: half of an export would not be known for one, and never be replaced.
            folder.rename(replaced)
        aside.rename(folder)
    finally:
        for left in (aside, replaced):
            shutil.rmtree(left, ignore_errors=True)
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
    cache: Path | None,
    asked: Collection[str],
) -> None:
    program.save(str(folder / PROGRAM))
    prompts = render_prompts(program, winner.config, spec)
    files = _write_prompts(folder, prompts)
    _write_code(folder, winner.config, spec)
    pipeline = yaml.safe_dump(_pipeline(winner.config, study, spec, dataset), sort_keys=False, allow_unicode=True)
    (folder / PIPELINE).write_text(pipeline, encoding="utf-8")
    examples, missing = worked_examples(program, winner.config, spec, dataset, cache, asked)
    page = explain(outcome, winner, spec, program, prompts, examples)
    # Half of a surrogate pair, which a model may write, is no UTF-8, and an escape in JSON.
    (folder / "prompt.md").write_text(page, encoding="utf-8", errors="backslashreplace")
    manifest = {
        **_manifest(outcome, winner, dataset, spec),
        "endpoint": _endpoint(spec, prompts),
        "prompts": files,
        "examples": examples,
        "examples_missing": missing,
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_code(folder: Path, config: PipelineConfig, spec: LMSpec) -> None:
    """The files that make the prompts work elsewhere: each needs nothing of this tool."""
    shutil.copyfile(export_fill.__file__, folder / "fill.py")
    if config.prompt_format == COMPACT:
        (folder / "compact_adapter.py").write_text(adapter_source(grammar=spec.is_local), encoding="utf-8")


def _write_prompts(folder: Path, prompts: list[Prompt]) -> list[dict[str, Any]]:
    """The prompts as files: bare completions as text, chats together as messages. What the manifest says of each."""
    chats = [prompt for prompt in prompts if prompt.text is None]
    if chats:
        content = [{"predictor": prompt.predictor, "messages": prompt.messages} for prompt in chats]
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / "messages.json").write_text(text + "\n", encoding="utf-8")
    files: list[dict[str, Any]] = []
    for prompt in prompts:
        if prompt.text is not None:
            # No newline at the end: the model goes on where the text ends.
            (folder / prompt.file).write_text(prompt.text, encoding="utf-8", newline="\n")
        entry = {"predictor": prompt.predictor, "file": prompt.file, "stop": prompt.stop}
        fields = {"inputs": list(prompt.inputs), "outputs": list(prompt.outputs)}
        files.append({**entry, "format": prompt.prompt_format, **fields, "settings": dict(prompt.settings)})
    return files


def _endpoint(spec: LMSpec, prompts: list[Prompt]) -> dict[str, Any]:
    """Where the prompts belong: an address of which kind, and for which model."""
    from programs.remote_lm import public_address

    return {
        "kind": "completion" if any(prompt.text is not None for prompt in prompts) else "chat",
        "model": spec.weights().name if spec.is_local else spec.model,
        "address": public_address(spec.api_base) if spec.api_base else None,
    }


def _pipeline(config: PipelineConfig, study: StudyConfig, spec: LMSpec, dataset: Dataset) -> dict[str, Any]:
    from programs.remote_lm import public_address

    # No temperature and no limit are settings, too, and not what a missing one would mean.
    kept = ("temperature", "max_tokens")
    lm = {name: value for name, value in asdict(spec).items() if value is not None or name in kept}
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
        "versions": {name: version(name) for name in ("ragwright", "dspy", "chromadb", "mlflow")},
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
        "difference": finite(asdict(outcome.difference)) if outcome.difference is not None else None,
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
        return None if entry is None else finite(entry.summary.as_metrics())

    return {phase: {"baseline": numbers(base), "winner": numbers(new)} for phase, (base, new) in pairs.items()}
