"""An export at work again: the same search over the same corpus, the same prompts, the same LM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optimize.compiling.program_state import load_program_state
from optimize.exporting.export import FORMAT, MANIFEST, PIPELINE, PROGRAM
from optimize.runs.run_dir import write_whole
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
    program: dspy.Module
    lm: dspy.LM
    adapter: dspy.Adapter
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
    from programs.lm import open_lm, parse_lm
    from programs.prompt_format import FORMATS
    from programs.response_cache import ResponseCache
    from programs.search import open_search
    from programs.summaries import open_summarizer, summarizer_identity

    manifest = _read_manifest(folder)
    pipeline = _read_pipeline(folder)
    config = PipelineConfig.from_params(pipeline["pipeline"])
    if config.prompt_format not in FORMATS:
        raise RagwrightError(
            f"{folder / PIPELINE}: prompt_format {config.prompt_format!r}; known: {', '.join(FORMATS)}."
        )
    place = corpus or Path(str(pipeline["corpus"].get("path")))
    found = _open_corpus(folder, place)
    spec = parse_lm(pipeline["lm"])
    index = index_key(found, config, summarizer_identity(spec))
    changes = _changes(manifest, pipeline, found, index)
    if changes and not accept_changes:
        raise RagwrightError(
            f"{folder}: {' '.join(changes)} The export's scores do not hold for that. Restore the corpus or the "
            f"version, run the study again, or measure it as it is now: ragwright evaluate {folder} (with --adopt to "
            "make the export one of it)"
        )
    lm = open_lm(spec, cache=ResponseCache(runs / "cache" / "responses.sqlite"))
    search = open_search(runs, found, config, served=True, summarizer=open_summarizer(lm, spec))
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
        changes=changes,
        corpus=found.fingerprint,
        corpus_path=place,
        index=index,
    )


def adopt_changes(exported: ExportedProgram, score: Mapping[str, Any]) -> None:
    """Make an export that was opened with changes one of the corpus as it is now, and keep what it scored on it.

    The scores of its study stay what they are: they were taken on the corpus as it was.

    Args:
        exported: Opened with `accept_changes`.
        score: What it was measured at on the corpus as it is now, JSON-serializable.
    """
    pipeline, manifest = dict(_read_pipeline(exported.folder)), dict(exported.manifest)
    again = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "changes": list(exported.changes), **score}
    manifest |= {"corpus": exported.corpus, "index": exported.index}
    manifest["measured_again"] = [*manifest.get("measured_again", ()), again]
    place = str((exported.corpus_path or Path()).resolve())
    pipeline["corpus"] = {"path": place, "fingerprint": exported.corpus}
    write_whole(exported.folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
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
    if not isinstance(content, dict) or set(content) != _PIPELINE_KEYS:
        raise RagwrightError(f"{file}: needs exactly the keys {', '.join(sorted(_PIPELINE_KEYS))}.")
    for name in ("pipeline", "lm", "corpus"):
        if not isinstance(content[name], dict):
            raise RagwrightError(f"{file}: {name}: must be a mapping, got {content[name]!r}.")
    return content


def _open_corpus(folder: Path, path: Path) -> Corpus:
    if not path.exists():
        raise RagwrightError(
            f"{path}: the corpus of {folder} is not there; name its place under corpus.path in {folder / PIPELINE}."
        )
    return load_corpus(path)


def _changes(manifest: Mapping[str, Any], pipeline: Mapping[str, Any], corpus: Corpus, index: str) -> tuple[str, ...]:
    """What is not as it was when the export was made, one sentence each."""
    was = pipeline["corpus"].get("fingerprint")
    if corpus.fingerprint != was:
        now = f"{len(corpus.documents)} documents, fingerprint {corpus.fingerprint}"
        return (f"the corpus has changed since this export was made (now {now}; it was {was}).",)
    if index == manifest.get("index"):
        return ()
    made = manifest.get("versions", {}).get("ragwright")
    return (
        f"the corpus is the same, but its index is another (key {index}, it was {manifest.get('index')}): the export "
        f"was made by ragwright {made}, and this is {version('ragwright')} with its own splitters and embedders.",
    )
