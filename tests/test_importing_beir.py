from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import ir_measures
import pytest
import yaml

from optimize.data.dataset import SPLITS, Dataset, load_dataset
from optimize.data.importing.common import import_beir
from optimize.data.splits import group_examples
from optimize.measures.table import measure_many, parse_measure
from programs.errors import ProblemsError, RagwrightError
from programs.types import Span

COUNT = 30
HEADER = "query-id\tcorpus-id\tscore"
Lines = Iterable[Mapping[str, object]]


def corpus() -> list[dict[str, object]]:
    return [{"_id": f"d{n}", "title": f"Town {n}", "text": f"Town {n} has {n} wells. \n"} for n in range(COUNT)]


def queries() -> list[dict[str, object]]:
    return [{"_id": f"q{n}", "text": f"How many wells has town {n}?", "metadata": {}} for n in range(COUNT)]


def beir(
    path: Path, documents: Lines | None = None, asked: Lines | None = None, **qrels: Iterable[tuple[int, int, int]]
) -> Path:
    """A folder in BEIR's layout; each judgement is (query number, document number, score)."""
    (path / "qrels").mkdir(parents=True)
    for name, lines in {"corpus": documents or corpus(), "queries": asked or queries()}.items():
        (path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, judged in qrels.items():
        lines = [HEADER, *(f"q{query}\td{document}\t{score}" for query, document, score in judged)]
        (path / "qrels" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own(numbers: Iterable[int]) -> list[tuple[int, int, int]]:
    """Each query's own document is the relevant one."""
    return [(number, number, 1) for number in numbers]


def imported(folder: Path) -> Dataset:
    import_beir(folder, folder.parent / "out", 0)
    return load_dataset(folder.parent / "out")


def problems(folder: Path) -> list[str]:
    with pytest.raises(ProblemsError) as error:
        import_beir(folder, folder.parent / "out", 0)
    assert not (folder.parent / "out").exists()
    return [str(problem).removeprefix(f"{folder}/") for problem in error.value.problems]


def test_relevant_document_is_a_fact_and_its_text_the_place(tmp_path: Path) -> None:
    judged = [*own(range(COUNT)), (0, 1, 2), (0, 2, 0), (0, 3, -1), (0, 1, 2)]
    found = imported(beir(tmp_path / "b", test=judged))
    assert len(found.corpus.documents) == COUNT
    assert found.corpus.document("d1").title == "Town 1"
    asked = {example.id: example for example in found.examples}
    assert len(asked) == COUNT
    assert asked["q0"].question == "How many wells has town 0?"
    assert [[place.span.doc_id for place in fact] for fact in asked["q0"].evidence] == [["d0"], ["d1"]]
    (place,) = asked["q0"].evidence[1]
    assert (place.quote, place.span) == ("Town 1 has 1 wells.", Span("d1", 0, 19))
    assert all(example.answers is None for example in found.examples)
    assert not found.abstains


def test_recall_over_whole_documents_is_that_of_the_judgements(tmp_path: Path) -> None:
    relevant = [4, 7, 9, 20]
    found = imported(beir(tmp_path / "b", test=[*own(range(COUNT)), *((0, n, 1) for n in relevant)]))
    example = next(example for example in found.examples if example.id == "q0")
    ranked = [11, 7, 0, 12, 9, 13, 14, 15, 16, 17, 4]
    names = ("R@1", "R@3", "R@10", "R@11", "nDCG@10")
    spans = [Span(f"d{n}", 0, len(found.corpus.document(f"d{n}").text)) for n in ranked]
    ours = measure_many([parse_measure(name) for name in names], [example], [spans])[0]
    theirs = ir_measures.calc_aggregate(
        [ir_measures.parse_measure(name) for name in names],
        {"q0": dict.fromkeys([f"d{n}" for n in [0, *relevant]], 1)},
        {"q0": {f"d{n}": -float(rank) for rank, n in enumerate(ranked)}},
    )
    assert dict(zip(names, ours, strict=True)) == pytest.approx({str(name): value for name, value in theirs.items()})
    assert ours[2] == pytest.approx(3 / 5)


def test_three_splits_of_its_own_are_kept(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", train=own(range(5)), dev=own(range(5, 8)), test=own(range(8, 20)))
    found = imported(folder)
    assert {split: [example.id for example in getattr(found, split)] for split in SPLITS} == {
        "train": [f"q{n}" for n in range(5)],
        "validation": [f"q{n}" for n in range(5, 8)],
        "test": [f"q{n}" for n in range(8, 20)],
    }


def test_question_in_two_splits_stays_in_the_later_one(tmp_path: Path) -> None:
    asked = queries()
    asked[6]["text"] = "how many wells has town 1"
    folder = beir(tmp_path / "b", None, asked, train=own(range(5)), dev=own(range(4, 8)), test=own([0, 8, 9]))
    summary = import_beir(folder, tmp_path / "out", 0)
    found = load_dataset(tmp_path / "out")
    ids = {split: [example.id for example in getattr(found, split)] for split in SPLITS}
    assert ids == {"train": ["q2", "q3"], "validation": ["q4", "q5", "q6", "q7"], "test": ["q0", "q8", "q9"]}
    assert summary.duplicates == 3


@pytest.mark.parametrize("dev", [None, own([0, 1])], ids=["no dev", "dev that is all in test"])
def test_splits_that_are_not_three_are_made_anew(tmp_path: Path, dev: list[tuple[int, int, int]] | None) -> None:
    judged = {"train": own(range(10, 15)), "test": own(range(10))} | ({"dev": dev} if dev else {})
    found = imported(beir(tmp_path / "b", **judged))
    assert sorted(example.id for example in found.examples) == sorted(f"q{n}" for n in range(15))
    assert all(getattr(found, split) for split in SPLITS)
    assert "Split anew" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_judgements_of_two_files_are_joined_where_it_is_split_anew(tmp_path: Path) -> None:
    found = imported(beir(tmp_path / "b", train=[(0, 0, 1)], test=[(0, 20, 1), *own(range(1, 9))]))
    assert next(example for example in found.examples if example.id == "q0").documents == {"d0", "d20"}


def test_questions_that_share_a_document_are_in_one_split(tmp_path: Path) -> None:
    judged = [*own(range(COUNT)), *((n, n + 1, 1) for n in range(0, COUNT, 3))]
    found = imported(beir(tmp_path / "b", test=judged))
    groups = group_examples(found.examples, {document.id: document for document in found.corpus.documents})
    assert len(set(groups.values())) == 20
    split_of = {example.id: split for split in SPLITS for example in getattr(found, split)}
    assert all(split_of[f"q{n}"] == split_of[f"q{n + 1}"] for n in range(0, COUNT, 3))


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    documents = corpus()
    documents[0]["text"] = " "
    documents[1] |= {"text": "", "title": ""}
    documents[2] = {"_id": "d2", "text": "No title.", "metadata": {"year": 2020, "by": ["\ud800"]}}
    folder = beir(tmp_path / "b", documents, None, test=[*own(range(25)), (2, 1, 1), (29, 3, 0)])
    summary = import_beir(folder, tmp_path / "out", 0)
    found = load_dataset(tmp_path / "out")
    assert found.corpus.document("d0").text == "Town 0"
    assert found.corpus.document("d2").metadata == {"year": 2020, "by": ["\ufffd"]}
    assert summary.documents == len(found.corpus.documents) == COUNT - 1
    assert {example.id for example in found.examples} == {f"q{n}" for n in range(25) if n != 1}
    assert next(example for example in found.examples if example.id == "q2").documents == {"d2"}
    notes = (
        "6 queries without relevant documents left out",
        "1 documents without text left out, also where they are relevant",
    )
    assert summary.notes == notes
    assert str(summary).endswith(f"0 duplicates left out; {notes[0]}; {notes[1]}")
    assert f"\n\nNote: {notes[0]}.\n" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_card_says_what_it_is(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", test=own(range(COUNT)))
    import_beir(folder, tmp_path / "out", 3, license="CC0", source="https://example.org")
    _, front, text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n")
    card = yaml.safe_load(front)
    assert (card["format"], card["license"], card["source"]) == ("BEIR", "CC0", "https://example.org")
    assert sum(card["counts"].values()) == COUNT
    assert "recall at k is BEIR's" in text


def test_windows_line_ends_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", test=own(range(COUNT)))
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert len(imported(folder).examples) == COUNT


def test_everything_wrong_is_named_at_once_with_file_and_line(tmp_path: Path) -> None:
    documents, asked = corpus(), queries()
    documents[1]["text"] = None
    documents[2]["_id"] = 7
    documents[3]["_id"] = "d0"
    asked[0]["text"] = "  "
    folder = beir(tmp_path / "b", documents, asked, dev=[(1, 99, 1)], test=[(99, 0, 1), (5, 5, 1), (5, 5, 0)])
    with (folder / "corpus.jsonl").open("ab") as file:
        file.write(b'{"_id": "x",\n\n["x"]\n\xff\n')
    with (folder / "qrels" / "test.tsv").open("a") as lines:
        lines.write("q1 d1 1\nq1\td1\t0.5\nq1\t0\td1\t1\n")
    assert [problem.split(" (")[0] for problem in problems(folder)] == [
        "corpus.jsonl:2: 'text' and 'title' must be strings, 'metadata' an object",
        'corpus.jsonl:3: an object with an \'_id\' is needed, got {"_id": 7, "title": "Town 2", "text": "Town 2 has '
        '2 wells. \\n"}',
        "corpus.jsonl:4: the _id 'd0' is already in line 1",
        "corpus.jsonl:31: not JSON: Expecting property name enclosed in double quotes at column 13",
        "corpus.jsonl:33: an object with an '_id' is needed, got [\"x\"]",
        "corpus.jsonl:34: not UTF-8 at byte 0",
        "queries.jsonl:1: 'text' must be a non-empty string, got '  '",
        "qrels/dev.tsv:2: no document 'd99' in corpus.jsonl",
        "qrels/test.tsv:2: no query 'q99' in queries.jsonl",
        "qrels/test.tsv:4: 'd5' has the score 1 for 'q5' above",
        "qrels/test.tsv:5: query-id, corpus-id and a whole score, separated by tabs, is needed, got 'q1 d1 1'",
        "qrels/test.tsv:6: query-id, corpus-id and a whole score, separated by tabs, is needed, got 'q1\\td1\\t0.5'",
        "qrels/test.tsv:7: query-id, corpus-id and a whole score, separated by tabs, is needed, got 'q1\\t0\\td1\\t1'",
    ]


def test_missing_header_costs_no_judgement_silently(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", test=own(range(COUNT)))
    file = folder / "qrels" / "test.tsv"
    file.write_text(file.read_text(encoding="utf-8").removeprefix(HEADER + "\n"), encoding="utf-8")
    assert problems(folder) == ["qrels/test.tsv:1: a header is needed, got 'q0\\td0\\t1'"]


def test_missing_files_are_named_together(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", test=own([1]))
    (folder / "corpus.jsonl").unlink()
    (folder / "queries.jsonl").unlink()
    assert [problem.split(" (")[0] for problem in problems(folder)] == [
        "corpus.jsonl: missing",
        "queries.jsonl: missing",
    ]
    (folder / "qrels" / "test.tsv").unlink()
    assert problems(folder)[2].startswith("qrels: has none of train.tsv, dev.tsv, test.tsv")
    with pytest.raises(RagwrightError, match="nowhere: no such folder; one with corpus"):
        import_beir(tmp_path / "nowhere", tmp_path / "out", 0)


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    folder = beir(tmp_path / "b", test=own(range(COUNT)))
    with pytest.raises(RagwrightError, match="already exists"):
        import_beir(folder, folder, 0)
