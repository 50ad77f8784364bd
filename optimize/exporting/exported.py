"""An export at work again: the same search over the same corpus, the same prompts, the same LM."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optimize.compiling.program_state import load_program_state
from optimize.exporting.export import FORMAT, MANIFEST, PIPELINE, PROGRAM
from optimize.reporting.headline import finite
from optimize.runs.run_dir import write_whole
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.corpus import Corpus, load_corpus
from programs.errors import RagwrightError
from programs.types import Passage

if TYPE_CHECKING:
    import dspy

    from programs.lm import LMSpec
    from programs.response_cache import ResponseCache

_KINDS: dict[str, Any] = {
    "format": int,
    "program": str,
    "abstain": bool,
    "metric": str | dict,
    "pipeline": dict,
    "lm": dict,
    "dataset": str,
    "corpus": dict,
}
"""Key of `pipeline.yaml` -> what it holds."""


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
        program_name: A name in `programs.catalogue.PROGRAMS`, or `module:factory`.
        program: With prompts and demos.
        lm: The opened LM.
        adapter: The prompt format.
        cache: Where the LM's answers are kept.
        changes: What is not as it was when the scores were taken, one sentence each; empty unless that was asked for.
        corpus: Fingerprint of the corpus that is searched.
        corpus_path: Where it was read.
        index: Key of the index that is searched.
    """

    folder: Path
    manifest: Mapping[str, Any]
    config: PipelineConfig
    spec: LMSpec
    metric: str | dict[str, float]
    dataset: Path
    program_name: str
    program: dspy.Module
    lm: dspy.LM
    adapter: dspy.Adapter
    cache: ResponseCache | None = None
    changes: tuple[str, ...] = ()
    corpus: str = ""
    corpus_path: Path | None = None
    index: str = ""

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

    def reopened(self) -> ExportedProgram:
        """The same with an LM that is asked anew: one that was found dead refuses every call for good."""
        from programs.lm import open_lm

        return replace(self, lm=open_lm(self.spec, cache=self.cache))


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """What `pipeline.yaml` says, read; places are seen from the export's folder."""

    config: PipelineConfig
    spec: LMSpec
    program: str
    abstain: bool
    metric: str | dict[str, float]
    dataset: Path
    corpus: Path
    corpus_fingerprint: str


def load_export(
    folder: Path, runs: Path, *, corpus: Path | None = None, accept_changes: bool = False
) -> ExportedProgram:
    """Open an export. Its files are checked before they are used; the index is built where `runs` has none.

    Args:
        folder: An export folder. Its `pipeline.yaml` names the LM that questions and passages are sent to.
        runs: Holds the indexes and the cached responses.
        corpus: Where the corpus is now; None: where `pipeline.yaml` says.
        accept_changes: Open it although the corpus, or what this version makes of it, is not what the export's scores
            were taken on; `changes` says what is different.

    Raises:
        RagwrightError: A file is missing or not what an export writes, or something has changed that was not accepted.
    """
    from programs.index import index_key
    from programs.lm import open_lm
    from programs.prompt_format import FORMATS
    from programs.response_cache import ResponseCache
    from programs.search import open_search
    from programs.summaries import open_summarizer, summarizer_identity

    manifest = _read_manifest(folder)
    pipeline = _parse_pipeline(folder)
    config, spec, place = pipeline.config, pipeline.spec, corpus or pipeline.corpus
    found = _open_corpus(folder, place)
    index = index_key(found, config, summarizer_identity(spec))
    changes = _changes(manifest, pipeline, found, index)
    if changes and not accept_changes:
        raise RagwrightError(
            f"{folder}: {' '.join(changes)} The export's scores do not hold for that. Restore the corpus, "
            "the settings or the version, run the study again, or measure it as it is now: ragwright evaluate "
            f"{shlex.quote(str(folder))} (with --adopt to make the export one of it)"
        )
    cache = ResponseCache(runs / "cache" / "responses.sqlite")
    lm = open_lm(spec, cache=cache)
    search = open_search(runs, found, config, served=True, summarizer=open_summarizer(lm, spec))
    program = build_program(pipeline.program, search, abstain=pipeline.abstain)
    load_program_state(program, folder / PROGRAM)
    return ExportedProgram(
        folder=folder,
        manifest=manifest,
        config=config,
        spec=spec,
        metric=pipeline.metric,
        dataset=pipeline.dataset,
        program_name=pipeline.program,
        program=program,
        lm=lm,
        adapter=FORMATS[config.prompt_format](),
        cache=cache,
        changes=changes,
        corpus=found.fingerprint,
        corpus_path=place,
        index=index,
    )


def adopt_changes(exported: ExportedProgram, score: Mapping[str, Any]) -> None:
    """Make an export that was opened with changes one of what is there now, and keep what it scored on it.

    The scores of its study stay what they are: they were taken on what was there then.

    Args:
        exported: Opened with `accept_changes`.
        score: What it was measured at now, JSON-serializable.
    """
    pipeline, manifest = dict(_read_pipeline(exported.folder)), dict(exported.manifest)
    again = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "changes": list(exported.changes), **score}
    manifest |= {"corpus": exported.corpus, "index": exported.index, "configuration": exported.config.fingerprint()}
    manifest["measured_again"] = [*manifest.get("measured_again", ()), again]
    place = exported.corpus_path
    if place is not None and place.resolve() != (exported.folder / pipeline["corpus"]["path"]).resolve():
        pipeline["corpus"] = {**pipeline["corpus"], "path": str(place.resolve())}
    pipeline["corpus"] = {**pipeline["corpus"], "fingerprint": exported.corpus}
    write_whole(exported.folder / MANIFEST, json.dumps(finite(manifest), ensure_ascii=False, indent=1) + "\n")
    write_whole(exported.folder / PIPELINE, yaml.safe_dump(pipeline, sort_keys=False, allow_unicode=True))


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
    if not isinstance(content, dict) or set(content) != set(_KINDS):
        raise RagwrightError(f"{file}: needs exactly the keys {', '.join(sorted(_KINDS))}.")
    for name, kind in _KINDS.items():
        if not isinstance(content[name], kind):
            wanted = getattr(kind, "__name__", kind)
            raise RagwrightError(f"{file}: {name}: must be {wanted}, got {content[name]!r}.")
    return content


def _parse_pipeline(folder: Path) -> _Pipeline:
    from programs.lm import parse_lm
    from programs.prompt_format import FORMATS

    content, file = _read_pipeline(folder), folder / PIPELINE
    try:
        config, spec = PipelineConfig.from_params(content["pipeline"]), parse_lm(content["lm"])
        if config.prompt_format not in FORMATS:
            raise RagwrightError(f"prompt_format {config.prompt_format!r}; known: {', '.join(FORMATS)}.")
        if not isinstance(place := content["corpus"].get("path"), str):
            raise RagwrightError(f"corpus.path: must be a path, got {place!r}.")
    except RagwrightError as error:
        raise RagwrightError(f"{file}: {error}") from None
    return _Pipeline(
        config=config,
        spec=spec,
        program=content["program"],
        abstain=content["abstain"],
        metric=content["metric"],
        # So that an export and its documents can travel together.
        dataset=(folder / content["dataset"]).resolve(),
        corpus=(folder / place).resolve(),
        corpus_fingerprint=str(content["corpus"].get("fingerprint")),
    )


def _open_corpus(folder: Path, path: Path) -> Corpus:
    if not path.exists():
        raise RagwrightError(
            f"{path}: the corpus of {folder} is not there; name its place under corpus.path in {folder / PIPELINE}."
        )
    return load_corpus(path)


def _changes(manifest: Mapping[str, Any], pipeline: _Pipeline, corpus: Corpus, index: str) -> tuple[str, ...]:
    """What is not as it was when the export was made, one sentence each."""
    changes = []
    was = pipeline.corpus_fingerprint
    settings = pipeline.config.fingerprint()
    if corpus.fingerprint != was:
        now = f"{len(corpus.documents)} documents, fingerprint {corpus.fingerprint}"
        changes.append(f"the corpus has changed since this export was made (now {now}; it was {was}).")
    if settings != manifest.get("configuration"):
        changes.append(f"{PIPELINE} has other pipeline settings than those that were measured.")
    if not changes and index != manifest.get("index"):
        made = manifest.get("versions", {}).get("ragwright")
        changes.append(
            f"the corpus is the same, but its index is another (key {index}, it was {manifest.get('index')}): the "
            f"export was made by ragwright {made}, and this is {version('ragwright')} with its own splitters and "
            "embedders."
        )
    return tuple(changes)
