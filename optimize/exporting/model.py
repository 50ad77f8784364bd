"""An export as an MLflow model: code, files and requirements, and no pickle."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optimize.exporting.export import MANIFEST, PIPELINE
from optimize.exporting.wheel import build_wheel, pinned_requirements
from programs.brought_vectors import ABOUT, VECTORS
from programs.catalogue import load_object
from programs.corpus import load_corpus
from programs.errors import RagwrightError

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

CARRIED = 50_000_000
"""Bytes up to which a model brings its corpus along; a larger one is looked for where `pipeline.yaml` says."""

_SWITCHED_OFF = ("MLFLOW_UV_AUTO_DETECT", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
"""Environment variables of MLflow's."""

CORPUS = "corpus"
"""The folder that the corpus has in a model, beside the export's."""

CODE = Path(__file__).with_name("model_code.py")


def save_model(export: Path, folder: Path, model: Model) -> None:
    """Write the model.

    Its folder holds the export, the corpus in one file, this project as a wheel in `code/`, and `requirements.txt`,
    which names that wheel and everything else at the version that is installed here. The index is not in it: it is
    built from the corpus, and has to come out with the key that the export's manifest records. The export in it names
    no place of this machine, but where its corpus is too large to come along.

    Args:
        export: An export folder.
        folder: Where to; it is not there yet.
        model: Knows its id and its run.

    Raises:
        RagwrightError: The corpus cannot be read, or is not the export's any more.
        MlflowException: MLflow refuses something.
    """
    import mlflow.pyfunc

    pipeline = yaml.safe_load((export / PIPELINE).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as place:
        aside = Path(place)
        shutil.copyfile(CODE, aside / "model.py")
        shutil.copytree(export, aside / "export")
        artifacts = {"export": str(aside / "export")}
        if _carry_corpus(export / pipeline["corpus"]["path"], pipeline["corpus"]["fingerprint"], aside / CORPUS):
            artifacts[CORPUS] = str(aside / CORPUS)
            pipeline["corpus"]["path"] = f"../{CORPUS}/{CORPUS}.jsonl"
        pipeline["dataset"] = Path(pipeline["dataset"]).name
        text = yaml.safe_dump(pipeline, sort_keys=False, allow_unicode=True)
        (aside / "export" / PIPELINE).write_text(text, encoding="utf-8")
        wheel = build_wheel(aside)
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(aside / "model.py"),
            artifacts=artifacts,
            code_paths=[str(wheel), *_own_code(pipeline["program"], aside)],
            pip_requirements=[*pinned_requirements(_extras(pipeline)), f"code/{wheel.name}"],
            signature=_signature(),
            input_example=_example(export),
            mlflow_model=model,
        )


def _carry_corpus(path: Path, fingerprint: str, folder: Path) -> bool:
    """Put the corpus into a folder as one file, and nothing else that lies beside it; False where it is too large."""
    corpus = load_corpus(path)
    if corpus.fingerprint != fingerprint:
        raise RagwrightError(f"{path}: the corpus has changed since the export was made; restore it, or run the study.")
    if sum(file.stat().st_size for file in (path, path.parent / VECTORS, *path.rglob("*")) if file.is_file()) > CARRIED:
        return False
    folder.mkdir()
    with (folder / f"{CORPUS}.jsonl").open("w", encoding="utf-8") as lines:
        for one in corpus.documents:
            line = {"id": one.id, "text": one.text, "title": one.title, "metadata": dict(one.metadata)}
            lines.write(json.dumps(line) + "\n")
    if corpus.brought is not None:
        for name in (VECTORS, ABOUT):
            shutil.copyfile(path.parent / name, folder / name)
    carried = load_corpus(folder / f"{CORPUS}.jsonl")
    assert carried.fingerprint == corpus.fingerprint, "a line holds all of a document"
    return True


def _own_code(program: str, aside: Path) -> list[str]:
    """The module or the package of a person's own program, which the model needs, too, copied without hidden files."""
    if ":" not in program:
        return []
    name = program.partition(":")[0].partition(".")[0]
    load_object(program, f"program: {program!r} is not there")
    spec = importlib.util.find_spec(name)
    assert spec is not None, "imported just now"
    folders = list(spec.submodule_search_locations or ())
    if not folders:
        assert spec.origin is not None, "a module is a file or a folder"
        return [spec.origin]
    copied = shutil.copytree(folders[0], aside / "own" / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    return [str(copied)]


def _extras(pipeline: Mapping[str, Any]) -> frozenset[str]:
    """The optional parts of this project that a pipeline uses."""
    named = {str(pipeline["pipeline"].get(part)).partition(":")[0] for part in ("embedder", "reranker")}
    extras = named & {"fastembed", "sentence-transformers"} | ({"fastembed"} if "colbert" in named else set())
    return frozenset(extras | ({"local"} if str(pipeline["lm"]["model"]).startswith("local") else set()))


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    text, number = DataType.string, DataType.long
    kinds = {"doc_id": text, "start": number, "end": number, "text": text}
    source = Object([Property(name, kind) for name, kind in kinds.items()])
    answers = Schema([ColSpec(text, "answer"), ColSpec(Array(source), "sources")])
    return ModelSignature(inputs=Schema([ColSpec(text, "question")]), outputs=answers)


def _example(export: Path) -> Any:
    """A question of a worked example, as a table of one row."""
    import pandas as pd  # type: ignore[import-untyped]

    examples = json.loads((export / MANIFEST).read_text(encoding="utf-8")).get("examples")
    return pd.DataFrame({"question": [examples[0]["question"] if examples else "What is this about?"]})


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep MLflow quiet, and away from the lock file of whatever project this process was started in.

    It would copy that into the model, warn of types of its own, and draw progress bars.
    """
    before = {name: os.environ.get(name) for name in _SWITCHED_OFF}
    os.environ.update(dict.fromkeys(_SWITCHED_OFF, "false"))
    # For good: what `catch_warnings` restores is not this thread's alone.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
