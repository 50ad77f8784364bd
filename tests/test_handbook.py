"""The sample data set keeps its promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from optimize.data.dataset import SPLITS, Dataset, load_dataset
from optimize.data.splits import group_examples
from optimize.studies.check import check_study

HANDBOOK = Path(__file__).parent.parent / "datasets" / "handbook"


@pytest.fixture(scope="module")
def handbook() -> Dataset:
    return load_dataset(HANDBOOK)


def test_every_quote_stands_at_its_span(handbook: Dataset) -> None:
    assert handbook.notes == ()
    for example in handbook.examples:
        assert example.evidence, example.id
        for fact in example.evidence:
            for place in fact:
                text = handbook.corpus.document(place.span.doc_id).text
                assert text[place.span.start : place.span.end] == place.quote, example.id


def test_sizes(handbook: Dataset) -> None:
    sizes = [len(document.text.split()) for document in handbook.corpus.documents]
    assert len(sizes) >= 60 and sum(sizes) >= 30_000
    assert all(300 <= size <= 1500 for size in sizes)
    assert len(handbook.examples) >= 240


def test_answers_are_few_and_short(handbook: Dataset) -> None:
    assert all(1 <= len(example.answers) <= 3 for example in handbook.examples)
    short = sum(len(example.answers[0].split()) <= 6 for example in handbook.examples)
    assert short >= 0.9 * len(handbook.examples)


def test_no_template_dominates(handbook: Dataset) -> None:
    starts = Counter(" ".join(example.question.lower().split()[:3]) for example in handbook.examples)
    assert starts.most_common(1)[0][1] < 0.2 * len(handbook.examples)


def test_splits_share_no_document(handbook: Dataset) -> None:
    groups = group_examples(handbook.examples, {document.id: document for document in handbook.corpus.documents})
    found = {split: {groups[example.id] for example in getattr(handbook, split)} for split in SPLITS}
    assert sum(map(len, found.values())) == len(set().union(*found.values())) >= 30
    assert len(found["test"]) >= 12
    documents = {split: {d for e in getattr(handbook, split) for d in e.documents} for split in SPLITS}
    assert sum(map(len, documents.values())) == len(set().union(*documents.values()))


def test_some_questions_need_two_documents(handbook: Dataset) -> None:
    assert sum(len(example.documents) == 2 for example in handbook.examples) >= 24
    assert all(len(example.documents) <= 2 for example in handbook.examples)


def test_the_card_counts_right(handbook: Dataset) -> None:
    card = yaml.safe_load((HANDBOOK / "README.md").read_text(encoding="utf-8").split("---")[1])
    words = sum(len(document.text.split()) for document in handbook.corpus.documents)
    counts = {"documents": len(handbook.corpus.documents), "words": words, "questions": len(handbook.examples)}
    assert card["counts"] == counts | {split: len(getattr(handbook, split)) for split in SPLITS}
    assert card["two_document_questions"] == sum(len(example.documents) == 2 for example in handbook.examples)


def test_the_quickstart_study_is_sound() -> None:
    checked = check_study(HANDBOOK / "quickstart.yaml")
    assert checked.allocation.reserved_calls + 5 * checked.allocation.trial_calls < checked.study.budget.lm_calls
