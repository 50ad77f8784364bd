"""An export at work again: the same search over the same corpus, the same prompts, the same LM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optimize.export import FORMAT, MANIFEST, PIPELINE, PROGRAM
from optimize.program_state import load_program_state
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.corpus import Corpus, load_corpus
from programs.errors import RagwrightError
from programs.types import Passage

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec

_PIPELINE_KEYS = {"format", "program", "abstain", "metric", "pipeline", "lm", "dataset", "corpus"}


@dataclass(frozen=True, eq=False)
class ExportedProgram:
    """A loaded export.

    Attributes:
        folder: Where it came from.
        manifest: Its fingerprints and scores.
        config: The pipeline.
        spec: The LM's description.
        metric: What it was tuned for, by name.
        dataset: The data set's folder.
        program: With prompts and demos.
        lm: The opened LM.
        adapter: The prompt format.
    """

    folder: Path
    manifest: Mapping[str, Any]
    config: PipelineConfig
    spec: LMSpec
    metric: str | dict[str, float]
    dataset: Path
    program: dspy.Module
    lm: dspy.LM
    adapter: dspy.Adapter

    def context(self) -> Any:
        """The DSPy context in which `program` answers."""
        import dspy

        return dspy.context(lm=self.lm, adapter=self.adapter)

    def ask(self, question: str) -> tuple[str, tuple[Passage, ...]]:
        """Answer a question; the passages are those that the LM was shown, best first.

        Raises:
            RagwrightError: The LM refuses the call.
        """
        with self.context():
            prediction = self.program(question=question)
        return str(prediction.answer or ""), tuple(prediction.get("passages") or ())


def load_export(folder: Path, runs: Path) -> ExportedProgram:
    """Open an export. Its files are checked before they are used; the index is built where `runs` has none.

    Args:
        folder: An export folder. Its `pipeline.yaml` names the LM that questions and passages are sent to.
        runs: Holds the indexes and the cached responses.

    Raises:
        RagwrightError: A file is missing or not what an export writes, or the corpus is not the one it was made for.
    """
    from programs.lm import open_lm, parse_lm
    from programs.prompt_format import FORMATS
    from programs.response_cache import ResponseCache
    from programs.search import open_search
    from programs.summaries import open_summarizer

    manifest = _read_manifest(folder)
    pipeline = _read_pipeline(folder)
    config = PipelineConfig.from_params(pipeline["pipeline"])
    if config.prompt_format not in FORMATS:
        raise RagwrightError(
            f"{folder / PIPELINE}: prompt_format {config.prompt_format!r}; known: {', '.join(FORMATS)}."
        )
    corpus = _open_corpus(folder, pipeline["corpus"])
    spec = parse_lm(pipeline["lm"])
    lm = open_lm(spec, cache=ResponseCache(runs / "cache" / "responses.sqlite"))
    search = open_search(runs, corpus, config, served=True, summarizer=open_summarizer(lm, spec))
    program = build_program(pipeline["program"], search, abstain=bool(pipeline["abstain"]))
    load_program_state(program, folder / PROGRAM)
    return ExportedProgram(
        folder=folder,
        manifest=manifest,
        config=config,
        spec=spec,
        metric=pipeline["metric"],
        dataset=Path(pipeline["dataset"]),
        program=program,
        lm=lm,
        adapter=FORMATS[config.prompt_format](),
    )


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        raise RagwrightError(f"{folder}: is no export, it has no {MANIFEST}; `ragwright export` says where one lies.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RagwrightError(f"{file}: not JSON ({error}); export the study again.") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise RagwrightError(f"{file}: format {found!r}, and this version reads {FORMAT}; export the study again.")
    return dict(manifest)


def _read_pipeline(folder: Path) -> Mapping[str, Any]:
    file = folder / PIPELINE
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RagwrightError(f"{file}: missing; export the study again.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RagwrightError(f"{file}: not YAML ({str(error).splitlines()[0]}); export the study again.") from None
    if not isinstance(content, dict) or set(content) != _PIPELINE_KEYS:
        raise RagwrightError(f"{file}: needs exactly the keys {', '.join(sorted(_PIPELINE_KEYS))}.")
    for name in ("pipeline", "lm", "corpus"):
        if not isinstance(content[name], dict):
            raise RagwrightError(f"{file}: {name}: must be a mapping, got {content[name]!r}.")
    return content


def _open_corpus(folder: Path, named: Mapping[str, Any]) -> Corpus:
    file, path = folder / PIPELINE, Path(str(named.get("path")))
    if not path.exists():
        raise RagwrightError(
            f"{path}: the corpus of {folder} is not there; name its place under corpus.path in {file}."
        )
    corpus = load_corpus(path)
    if corpus.fingerprint != named.get("fingerprint"):
        raise RagwrightError(
            f"{path}: the corpus has changed since {folder} was made (fingerprint {corpus.fingerprint}, was "
            f"{named.get('fingerprint')}), and its scores do not hold for it. Restore the corpus, run the study again, "
            f"or, to go on with unmeasured quality, write the new fingerprint under corpus.fingerprint in {file}."
        )
    return corpus
