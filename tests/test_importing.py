from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from optimize.cli.data import FORMATS, data
from optimize.data.dataset import SPLITS, Dataset, load_dataset
from optimize.data.importing.common import ImportSummary, import_huggingface, import_squad
from optimize.data.splits import FEW_DOCUMENTS
from programs.errors import ProblemsError, RagwrightError

COLUMNS = {"question": "question", "answers": "answers", "context": "context"}
Qa = dict[str, Any]


def qa(context: str, number: object, question: str, *answers: str, **keys: Any) -> Qa:
    found = [{"text": answer, "answer_start": context.index(answer)} for answer in answers]
    return {"id": f"id{number}", "question": question, "answers": found, **keys}


def article(title: str, *contexts: str) -> dict[str, Any]:
    """Two questions about each context, which is of the form `… is in Place, found by Person.`"""
    paragraphs = []
    for number, context in enumerate(contexts):
        place, person = context.split(" is in ")[1].removesuffix(".").split(", found by ")
        key = f"{title}-{number}"
        where = qa(context, f"{key}-a", f"Where is {key}?", place, place, f"in {place}", place)
        paragraphs.append({"context": context, "qas": [where, qa(context, f"{key}-b", f"Who found {key}?", person)]})
    return {"title": title, "paragraphs": paragraphs}


def squad_file(path: Path, *articles: dict[str, Any]) -> Path:
    file = path / "squad.json"
    file.write_text(json.dumps({"version": "2.0", "data": articles}), encoding="utf-8")
    return file


def three_articles() -> list[dict[str, Any]]:
    return [
        article(title, f"{title} is in Rome 😀, found by Ada.", f"{title} is in Kyōto, found by Bo.") for title in "XYZ"
    ]


def verified(path: Path) -> Dataset:
    """The data set as read back, each of its quotes compared with the text at its span."""
    found = load_dataset(path)
    texts = {document.id: document.text for document in found.corpus.documents}
    for example in found.examples:
        for place in (place for fact in example.evidence for place in fact):
            assert texts[place.span.doc_id][place.span.start : place.span.end] == place.quote
            assert place.quote in example.answers
    assert found.notes == ()
    return found


def test_article_becomes_a_document_and_its_answers_become_spans(tmp_path: Path) -> None:
    summary = import_squad(squad_file(tmp_path, *three_articles()), tmp_path / "out", seed=0)
    found = verified(tmp_path / "out")
    assert [(document.id, document.title) for document in found.corpus.documents] == [
        ("x", "X"),
        ("y", "Y"),
        ("z", "Z"),
    ]
    assert found.corpus.document("x").text == "X is in Rome 😀, found by Ada.\n\nX is in Kyōto, found by Bo."
    second = next(example for example in found.examples if example.id == "idX-1-a")
    assert second.answers == ("Kyōto", "in Kyōto")
    assert [(p.span.start, p.quote) for p in second.evidence[0]] == [(39, "Kyōto"), (36, "in Kyōto")]
    assert summary == ImportSummary(
        path=tmp_path / "out",
        documents=3,
        questions={name: len(getattr(found, name)) for name in SPLITS},
        with_evidence=12,
        duplicates=0,
    )
    assert str(summary).startswith(f"{tmp_path / 'out'}: 3 documents; questions: ")


def test_card_says_where_the_data_come_from(tmp_path: Path) -> None:
    file = squad_file(tmp_path, *three_articles())
    import_squad(file, tmp_path / "out", 4, license="CC BY-SA 4.0", source="https://example.org")
    card = yaml.safe_load((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (card["license"], card["source"], card["seed"]) == ("CC BY-SA 4.0", "https://example.org", 4)
    assert sum(card["counts"].values()) == 12
    import_squad(file, tmp_path / "other", 4)
    assert "license: see the source\nsource: see the source\n" in (tmp_path / "other" / "README.md").read_text()


def test_titles_make_unique_readable_ids(tmp_path: Path) -> None:
    articles = [
        article(title, f"{number} is in Rome, found by Ada.")
        for number, title in enumerate(["A_b", "a b!", "Été", "…"])
    ]
    for number, made in enumerate(articles):
        for question in made["paragraphs"][0]["qas"]:
            question |= {"id": f"{number}{question['id']}", "question": f"{number} {question['question']}"}
    import_squad(squad_file(tmp_path, *articles), tmp_path / "out", 0)
    documents = load_dataset(tmp_path / "out").corpus.documents
    assert {document.id: document.title for document in documents} == {
        "a-b": "A b",
        "a-b-2": "a b!",
        "été": "Été",
        "document": "…",
    }


def test_impossible_question_has_no_answer_and_stays_with_its_article(tmp_path: Path) -> None:
    articles = [article(f"T{n}", f"T{n} is in Rome, found by Ada.") for n in range(FEW_DOCUMENTS)]
    for number, made in enumerate(articles):
        plausible = [{"text": "Rome", "answer_start": 0}]
        impossible = qa("", f"no{number}", f"Why T{number}?", is_impossible=True, plausible_answers=plausible)
        made["paragraphs"][0]["qas"].append(impossible)
    summary = import_squad(squad_file(tmp_path, *articles), tmp_path / "out", 0)
    found = verified(tmp_path / "out")
    assert summary.with_evidence == 2 * FEW_DOCUMENTS
    assert found.abstains
    for split in SPLITS:
        asked = [example.question.split()[-1].split("-")[0].rstrip("?") for example in getattr(found, split)]
        assert all(asked.count(title) == 3 for title in asked)


def test_windows_line_ends_move_offsets_and_spans_still_fit(tmp_path: Path) -> None:
    articles = [article(title, f"a\r\nb\r\n{title} is in Rome, found by Ada.") for title in "XYZ"]
    import_squad(squad_file(tmp_path, *articles), tmp_path / "out", 0)
    assert verified(tmp_path / "out").corpus.document("x").text.startswith("a\nb\nX")


def test_repeated_question_is_left_out_and_counted(tmp_path: Path) -> None:
    articles = three_articles()
    again = dict(articles[0]["paragraphs"][0]["qas"][0], id="again", question="where is  X-0")
    articles[0]["paragraphs"][0]["qas"].append(again)
    summary = import_squad(squad_file(tmp_path, *articles), tmp_path / "out", 0)
    assert summary.duplicates == 1
    assert "again" not in {example.id for example in verified(tmp_path / "out").examples}


def test_every_wrong_offset_is_named_with_article_and_question(tmp_path: Path) -> None:
    articles = three_articles()
    articles[0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 2
    articles[1]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = -4
    articles[1]["paragraphs"][1]["qas"][1]["answers"] = []
    articles[2]["paragraphs"][1]["qas"][1] |= {"id": "idX-0-a", "question": " "}
    file = squad_file(tmp_path, *articles)
    with pytest.raises(ProblemsError) as error:
        import_squad(file, tmp_path / "out", 0)
    assert [str(problem).removeprefix(f"{file}: ") for problem in error.value.problems] == [
        "X: idX-0-a: the answer 'Rome 😀' is not at answer_start 2",
        "Y: idY-0-a: the answer 'Rome 😀' is not at answer_start -4",
        "Y: idY-1-b: no answer, and not marked is_impossible",
        "Z: idX-0-a: the id 'idX-0-a' is used more than once",
        "Z: idX-0-a: the question is blank",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squad.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "squad.json:1: not JSON"),
        ("[]", "not SQuAD's format: the whole: "),
        ('{"data": [{"title": "X"}]}', "not SQuAD's format: data.0.paragraphs: field required"),
    ],
)
def test_other_formats_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "squad.json").write_text(content, encoding="utf-8")
    with pytest.raises(RagwrightError, match=message):
        import_squad(tmp_path / "squad.json", tmp_path / "out", 0)
    with pytest.raises(RagwrightError, match="no such file"):
        import_squad(tmp_path / "none.json", tmp_path / "out", 0)


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    file = squad_file(tmp_path, *three_articles())
    with pytest.raises(RagwrightError, match="already exists"):
        import_squad(file, tmp_path / "out", 0)
    with pytest.raises(RagwrightError, match="already exists"):
        import_huggingface(str(file), tmp_path / "out", COLUMNS, None, None, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("squad", "no such file; a JSON file in SQuAD's format"),
        ("huggingface", "no such file or folder"),
        ("beir", "no such folder; one with corpus.jsonl"),
        ("chroma-chunking", "no .md files"),
    ],
)
def test_each_format_has_its_reader(tmp_path: Path, name: str, message: str) -> None:
    result = CliRunner().invoke(
        data, ["import", str(tmp_path / "no"), "--format", name, "--out", str(tmp_path / "out")]
    )
    assert isinstance(result.exception, RagwrightError)
    assert message in str(result.exception)
    assert name in FORMATS


def test_help_and_error_list_all_formats(tmp_path: Path) -> None:
    result = CliRunner().invoke(data, ["import", "no", "--format", "csv", "--out", str(tmp_path / "out")])
    assert str(result.exception) == (
        "--format: unknown format 'csv'; choices: squad, huggingface, beir, chroma-chunking."
    )
    said = " ".join(CliRunner().invoke(data, ["import", "--help"], terminal_width=120).output.split())
    assert all(f"{name}: {source}" in said for name, source in FORMATS.items())


def test_import_that_cannot_be_split_leaves_nothing(tmp_path: Path) -> None:
    file = squad_file(tmp_path, article("X", "X is in Rome, found by Ada."))
    with pytest.raises(RagwrightError, match="independent part"):
        import_squad(file, tmp_path / "new" / "out", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squad.json"]


def rows(count: int = 5) -> Iterator[dict[str, Any]]:
    for n in range(count):
        context = f"Sample {n} is {n}0 m long. Ada{n} saw it; Ada{n} drew it.\r\nIt is not new."
        yield {"question": f"How long is {n}?", "answers": [f"{n}0 m", f"{n}0"], "context": context, "title": f"S {n}"}
        yield {"question": f"Who saw {n}?", "answers": [f"Ada{n}"], "context": context, "title": f"S {n}"}
        yield {"question": f"Is {n} old?", "answers": ["yes"], "context": context, "title": f"S {n}"}


def json_lines(file: Path, lines: Iterator[dict[str, Any]]) -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


def take(name: str, path: Path, columns: Mapping[str, str] = COLUMNS, split: str | None = None) -> Dataset:
    import_huggingface(name, path / "out", columns, split, None, 0)
    return verified(path / "out")


def test_each_context_is_a_document_and_an_answer_in_it_is_evidence(tmp_path: Path) -> None:
    found = take(json_lines(tmp_path / "a.jsonl", rows()), tmp_path)
    assert [document.id for document in found.corpus.documents] == [f"document-{n}" for n in range(1, 6)]
    asked = {example.question: example for example in found.examples}
    assert len(asked) == 15
    (fact,) = asked["Who saw 3?"].evidence
    assert [place.span.start for place in fact] == [found.corpus.document("document-4").text.index("Ada3")]
    (either,) = asked["How long is 3?"].evidence
    assert [place.quote for place in either] == ["30 m", "30"]
    assert asked["Is 3 old?"].evidence == ()


def test_part_of_a_word_is_no_evidence(tmp_path: Path) -> None:
    lines = ({**row, "answers": ["no"] if "old" in row["question"] else ["ew"]} for row in rows())
    assert not any(example.evidence for example in take(json_lines(tmp_path / "a.jsonl", lines), tmp_path).examples)


def test_titles_and_ids_are_used_where_they_are_named(tmp_path: Path) -> None:
    lines = ({**row, "n": number} for number, row in enumerate(rows()))
    found = take(json_lines(tmp_path / "a.jsonl", lines), tmp_path, {**COLUMNS, "title": "title", "id": "n"})
    assert {document.id: document.title for document in found.corpus.documents} == {
        f"s-{n}": f"S {n}" for n in range(5)
    }
    assert {example.id for example in found.examples} == {str(n) for n in range(15)}


def test_with_many_contexts_no_context_is_in_two_splits(tmp_path: Path) -> None:
    found = take(json_lines(tmp_path / "a.jsonl", rows(FEW_DOCUMENTS)), tmp_path)
    groups = [{example.group for example in getattr(found, split)} for split in SPLITS]
    assert set.union(*groups) == {document.id for document in found.corpus.documents}
    assert sum(map(len, groups)) == FEW_DOCUMENTS


def test_squad_answers_are_taken_at_their_offsets(tmp_path: Path) -> None:
    def second(row: dict[str, Any]) -> dict[str, Any]:
        starts = [row["context"].rfind(answer) for answer in row["answers"]]
        known = -1 not in starts
        return {**row, "answers": {"text": row["answers"] if known else [], "answer_start": starts if known else []}}

    found = take(json_lines(tmp_path / "a.jsonl", map(second, rows())), tmp_path)
    seen = next(example for example in found.examples if example.question == "Who saw 3?")
    assert seen.evidence[0][0].span.start == found.corpus.document("document-4").text.rindex("Ada3")
    assert found.abstains


def test_csv_is_taken_as_it_is_written(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["q", "a", "c"])
        writer.writerows(
            [row["question"], "NA" if "old" in row["question"] else "3.10", row["context"]] for row in rows()
        )
    found = take(str(tmp_path / "a.csv"), tmp_path, {"question": "q", "answers": "a", "context": "c"})
    assert {example.answers for example in found.examples} == {("NA",), ("3.10",)}


def test_folder_is_read_whole_or_by_split(tmp_path: Path) -> None:
    lines = list(rows())
    json_lines(tmp_path / "data" / "train.jsonl", iter(lines[:9]))
    json_lines(tmp_path / "data" / "test.jsonl", iter(lines[9:]))
    assert len(take(str(tmp_path / "data"), tmp_path).examples) == 15
    import_huggingface(str(tmp_path / "data"), tmp_path / "part", COLUMNS, "train", None, 0)
    assert len(verified(tmp_path / "part").examples) == 9
    with pytest.raises(RagwrightError, match='Unknown split "dev"'):
        import_huggingface(str(tmp_path / "data"), tmp_path / "dev", COLUMNS, "dev", None, 0)


def test_split_with_secret_answers_is_not_taken_for_unanswerable(tmp_path: Path) -> None:
    lines = list(rows())
    json_lines(tmp_path / "data" / "train.jsonl", iter(lines[:9]))
    json_lines(tmp_path / "data" / "test.jsonl", ({**line, "answers": []} for line in lines[9:]))
    with pytest.raises(RagwrightError, match="no question of the split 'test' has an answer"):
        take(str(tmp_path / "data"), tmp_path)


def test_rows_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    lines = list(rows())
    lines[1]["answers"] = ["", "x"]
    lines[2]["question"] = None
    lines[4]["context"] = "  "
    name = json_lines(tmp_path / "a.jsonl", iter(lines))
    with pytest.raises(ProblemsError) as error:
        take(name, tmp_path)
    assert [str(problem).removeprefix(f"{name}: ") for problem in error.value.problems] == [
        "train, row 2: an answer must be text that is not blank, got ''",
        "train, row 3: question must be text that is not blank, got None",
        "train, row 5: context must be text that is not blank, got '  '",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]


def test_wrong_offset_is_a_problem(tmp_path: Path) -> None:
    lines = ({**row, "answers": {"text": ["Ada"], "answer_start": [1]}} for row in rows(1))
    with pytest.raises(ProblemsError, match="row 1: the answer 'Ada' is not at answer_start 1"):
        take(json_lines(tmp_path / "a.jsonl", lines), tmp_path)


def test_missing_columns_are_named_beside_those_that_there_are(tmp_path: Path) -> None:
    name = json_lines(tmp_path / "a.jsonl", rows())
    expected = r"no column 'reply' \(for answers\), 'uid' \(for id\); columns: question, answers, context, title\."
    with pytest.raises(RagwrightError, match=expected):
        take(name, tmp_path, {**COLUMNS, "answers": "reply", "id": "uid"})
    with pytest.raises(RagwrightError, match="say which column is 'context', as context=NAME"):
        take(name, tmp_path, {"question": "question", "answers": "answers"})
    with pytest.raises(
        RagwrightError, match="unknown name 'answer'; known names: question, answers, context, id, title"
    ):
        take(name, tmp_path, {**COLUMNS, "answer": "answers"})


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match="ids repeat; leave out the column for `id`"):
        take(json_lines(tmp_path / "a.jsonl", rows()), tmp_path, {**COLUMNS, "id": "title"})


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"question": "a"}\n{"question": \n', encoding="utf-8")
    (tmp_path / "text.txt").write_text("a", encoding="utf-8")
    for name, message in {
        "broken.jsonl": "`datasets` cannot read it: JSON parse error",
        "text.txt": "nothing that can be read; give one file, or a folder of one kind: .jsonl, .json, .csv, .parquet",
        "none.jsonl": "no such file or folder",
        "none": "no such file or folder",
    }.items():
        with pytest.raises(RagwrightError, match=message) as error:
            take(str(tmp_path / name), tmp_path)
        assert "\n" not in str(error.value)


def test_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        RagwrightError, match=r"owner/name: cannot reach the Hugging Face hub; connect, or name a local file\.$"
    ):
        take("owner/name", tmp_path)
    assert list(tmp_path.iterdir()) == []
