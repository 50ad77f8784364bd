"""New folders: a study over a person's own documents, and the one that quickstart runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optimize.data.dataset import read_examples, write_dataset
from optimize.data.splits import split_examples
from programs.corpus import find_corpus, load_corpus
from programs.errors import Problem, ProblemsError, RagwrightError

STUDY = """\
# What each setting may be, and what it costs: `ragwright plan {file}`.
name: {name}
dataset: datasets/{name}
program: rag                       # rag | rewrite | hyde | multi_query | multihop | my_module:build
lm: local                          # local | local:/path/model.gguf | openai/gpt-4o-mini | ollama_chat/llama3.2 | ...
metric: token_f1                   # token_f1 | exact_match | my_module:score
space:
  splitter: {splitters}
  chunk_size: [64, 96, 128, 192, 256]
  chunk_overlap: [0.0, 0.1, 0.25]
  embedder: [{embedder}]
  retriever: [dense, sparse, hybrid]
  retrieve_k: [10, 20]
  reranker: [none, lexical, mmr]
  top_k: [1, 2, 3]
  prompt_format: [compact]         # compact | chat | json | xml; large models can have all of them
baseline:                          # what the winner is compared with: put your present settings here
  splitter: {splitter}
  chunk_size: 256
  embedder: {embedder}
  retriever: dense
  top_k: 3
  prompt_format: compact
optimizers: [labeled_fewshot, bootstrap_fewshot]
smallest_effect: 0.05              # a difference in the metric that would matter to you
budget: {{lm_calls: 600}}
seed: 0
"""


@dataclass(frozen=True)
class Documents:
    """Documents in a folder or a corpus.jsonl."""

    path: Path
    splitters: str = "[recursive, sentence, markdown]"
    embedder: str = "wordllama"

    def write(self, dataset: Path) -> list[str]:
        """Copy them into a data set folder."""
        corpus = load_corpus(self.path)
        if self.path.is_dir():
            shutil.copytree(self.path, dataset / "corpus")
        else:
            shutil.copyfile(self.path, dataset / "corpus.jsonl")
        return [f"{len(corpus.documents)} documents, {len(corpus.warnings)} skipped"]


@dataclass(frozen=True)
class ExistingCollection:
    """A Chroma collection: each record is a document and stays one chunk."""

    source: str
    embedder: str
    splitters: str = "[whole]"

    def write(self, dataset: Path) -> list[str]:
        """Write a snapshot of it into a data set folder."""
        from optimize.data.existing_collection import write_collection

        return write_collection(self.source, self.embedder, dataset)


def scaffold(folder: Path, content: Documents | ExistingCollection, questions: Path | None, seed: int) -> list[str]:
    """Set up `folder` with a data set and a study file.

    Returns:
        What was done and what to do next, a line each.

    Raises:
        RagwrightError: The folder exists, or the documents or questions cannot be used; then nothing is left behind.
    """
    if folder.exists():
        raise RagwrightError(f"{folder}: exists already; name a new folder.")
    name = folder.resolve().name
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        dataset = aside / "datasets" / name
        dataset.mkdir(parents=True)
        lines = [f"{folder}: {line}" for line in content.write(dataset)]
        if questions is not None:
            if questions.is_file():
                shutil.copyfile(questions, dataset / "questions.jsonl")
            # What is wrong with them is said of the person's own file: the copy is gone by then.
            lines.append(f"{folder}: {_split(questions, dataset, seed)}")
        study = STUDY.format(
            name=name,
            file=folder / "study.yaml",
            splitters=content.splitters,
            splitter=content.splitters.strip("[]").split(",")[0],
            embedder=content.embedder,
        )
        (aside / "study.yaml").write_text(study, encoding="utf-8")
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return lines + _next_steps(folder, name, questions is not None)


def _next_steps(folder: Path, name: str, has_questions: bool) -> list[str]:
    dataset = f"{folder}/datasets/{name}"
    steps = [f"ragwright check {folder}/study.yaml", f"ragwright optimize {folder}/study.yaml"]
    if not has_questions:
        line = '{"question": "...", "answer": "..."}'
        steps = [
            f"write {dataset}/questions.jsonl: 50 or more lines of {line}",
            f"ragwright data split {dataset}",
            *steps,
        ]
    return ["next:"] + [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]


def split_folder(folder: Path, seed: int) -> str:
    """Deal a data set's questions.jsonl into its three splits; says what came of it.

    Raises:
        ProblemsError: The questions hold mistakes, all listed.
        RagwrightError: There are no questions, or too few, or a split is there already.
    """
    if (folder / "test.jsonl").exists():
        raise RagwrightError(f"{folder}: is split already; remove its three split files to split it anew.")
    return f"{folder}: {_split(folder / 'questions.jsonl', folder, seed)}"


def _split(file: Path, folder: Path, seed: int) -> str:
    """Deal the questions of a file into the splits of a data set folder."""
    if not file.is_file():
        raise RagwrightError(f"{file}: missing; write one question with its answers a line.")
    documents = {document.id: document for document in load_corpus(find_corpus(folder)).documents}
    problems: list[Problem] = []
    notes: list[str] = []
    examples = [example for _, example in read_examples(file, documents, problems, notes)]
    if problems:
        raise ProblemsError(problems)
    if not examples:
        raise RagwrightError(f"{file}: has no questions; write one with its answers a line, fifty or more.")
    splits = split_examples(examples, documents, seed)
    card = {"license": "see the source", "source": "see the source", "seed": seed}
    write_dataset(folder, card, splits, "Questions over the documents in this folder, split by source document.")
    spans = sum(bool(example.evidence) for example in examples)
    counts = ", ".join(f"{len(found)} {name}" for name, found in splits.items())
    hint = "" if spans else "; without evidence answers are scored, but retrieval is not, and splits go by question"
    return f"{counts}; evidence for {spans} of {len(examples)}{hint}"


@contextmanager
def quickstart_study() -> Iterator[Path]:
    """The study file of the quickstart, beside the sample data set, in a checkout and in an installed package.

    Raises:
        RagwrightError: The sample is missing from this installation.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "datasets" / "handbook", package / "handbook"):
        if (folder / "quickstart.yaml").is_file():
            yield folder / "quickstart.yaml"
            return
    raise RagwrightError("the sample handbook is not part of this installation; clone the project to run quickstart.")
