from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from optimize.data.dataset import Dataset, load_dataset, normalized_question, require_answers, write_dataset
from optimize.data.example import Example, Place
from programs.errors import ProblemsError, RagwrightError
from programs.types import Span

TEXT = "Ada wrote a note. Bob read the note."
QUOTE = [[{"doc_id": "d", "start": 0, "end": 3, "quote": "Ada"}]]


def line(question: str, **keys: object) -> str:
    return json.dumps({"question": question, "answers": ["Ada"], **keys}, ensure_ascii=False)


def folder(path: Path, **splits: str) -> Path:
    path.mkdir(exist_ok=True)
    corpus = json.dumps({"id": "d", "text": TEXT})
    (path / "corpus.jsonl").write_text(corpus + "\n", encoding="utf-8")
    contents = {"train": line("One?"), "validation": line("Two?"), "test": line("Three?")} | splits
    for name, content in contents.items():
        (path / f"{name}.jsonl").write_bytes(content.encode())
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(ProblemsError) as error:
        load_dataset(path)
    return [str(problem).replace(str(path) + "/", "") for problem in error.value.problems]


def test_data_set_is_read(tmp_path: Path) -> None:
    found = load_dataset(folder(tmp_path / "small", train=line("Who?", evidence=QUOTE) + "\n\n" + line("Else?")))
    assert found.name == "small"
    assert [example.id for example in found.train] == ["train-1", "train-3"]
    assert len(found.examples) == 4
    assert not found.abstains
    assert found.notes == ()


def test_question_that_cannot_be_answered_is_noticed(tmp_path: Path) -> None:
    assert load_dataset(folder(tmp_path, test=line("Three?", answers=[]))).abstains


def test_unknown_answers_are_no_missing_ones(tmp_path: Path) -> None:
    found = load_dataset(folder(tmp_path, test=line("Three?", answers=None) + "\n" + line("Four?", answers=None)))
    assert found.unknown_answers == 2
    assert not found.abstains
    with pytest.raises(RagwrightError, match=rf"^2 questions of {tmp_path.name} have no known answers"):
        require_answers(found)
    require_answers(load_dataset(folder(tmp_path, test=line("Three?", answers=[]))))


def test_problems_of_all_files_come_at_once_with_their_lines(tmp_path: Path) -> None:
    folder(
        tmp_path,
        train="\n".join([line("One?"), "{oops", line("Ten?", evidence=[[{"doc_id": "x", "quote": "Ada"}]])]),
        validation=line("", id="v") + "\n" + line("Nine?", nonsense=1),
    )
    (tmp_path / "test.jsonl").write_bytes(b'{"question": "\xff"}')
    found = problems(tmp_path)
    assert found == [
        "train.jsonl:2: not JSON: Expecting property name enclosed in double quotes at column 2 (one object a line)",
        "train.jsonl:3: no document 'x' in the corpus",
        "validation.jsonl:1: 'question' must be a non-empty string, got ''",
        found[3],
        "test.jsonl: not UTF-8 at byte 14 (save the file as UTF-8)",
    ]
    assert found[3].startswith("validation.jsonl:2: unknown key 'nonsense'")


def test_missing_and_empty_splits_are_problems(tmp_path: Path) -> None:
    folder(tmp_path, validation="\n \n")
    (tmp_path / "train.jsonl").unlink()
    assert [problem.split(" (")[0] for problem in problems(tmp_path)] == [
        "train.jsonl: missing",
        "validation.jsonl: holds no example",
    ]


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match="no such data set folder"):
        load_dataset(tmp_path / "nowhere")


def test_moved_quote_is_found_again_with_a_note(tmp_path: Path) -> None:
    moved = [[{"doc_id": "d", "start": 1, "end": 4, "quote": "Bob"}]]
    found = load_dataset(folder(tmp_path, test=line("Three?", evidence=moved)))
    assert found.test[0].evidence[0][0].span == Span("d", 18, 21)
    assert found.notes == (f"{tmp_path / 'test.jsonl'}:1: a quote in 'd' moved from 1 to 18",)


def test_ambiguous_quote_is_a_problem(tmp_path: Path) -> None:
    unclear = [[{"doc_id": "d", "quote": "note"}]]
    assert "occurs more than once" in problems(folder(tmp_path, test=line("Three?", evidence=unclear)))[0]


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    content = "\ufeff" + line("One?") + "\r\n\r\n" + line("Four?") + "\r\n"
    assert [e.id for e in load_dataset(folder(tmp_path, train=content)).train] == ["train-1", "train-3"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b"])
def test_line_separators_inside_a_string_end_no_line(tmp_path: Path, separator: str) -> None:
    content = json.dumps({"question": "A?", "answers": ["x"]}, ensure_ascii=False).replace("A?", f"A{separator}B?")
    if separator == "\x0b":
        content = content.replace(separator, "\\u000b")
    found = load_dataset(folder(tmp_path, train=content + "\n" + line("Four?")))
    assert [example.question for example in found.train] == [f"A{separator}B?", "Four?"]


def test_id_used_twice_is_a_problem_in_whatever_split(tmp_path: Path) -> None:
    found = problems(folder(tmp_path, train=line("One?", id="a"), test=line("Three?", id="a")))
    assert found == ["test.jsonl:1: id 'a' is already used at train.jsonl:1"]


def test_same_question_in_two_splits_is_a_problem_and_in_one_split_is_none(tmp_path: Path) -> None:
    twice = line("Who wrote?") + "\n" + line("who WROTE")
    assert len(load_dataset(folder(tmp_path / "a", train=twice)).train) == 2
    found = problems(folder(tmp_path / "b", train=twice, test="\n" + line("  who — wrote!")))
    assert found == ["test.jsonl:2: the same question is asked at train.jsonl:1 (keep it in one split)"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who wrote it?", "who  wrote it", True),
        ("Straße?", "STRASSE", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("What is C++?", "What is C?", False),
        ("कि?", "की?", False),
        ("?", "!", False),
    ],
)
def test_questions_are_the_same_but_for_case_punctuation_and_spacing(one: str, other: str, same: bool) -> None:
    assert (normalized_question(one) == normalized_question(other)) is same


def written(path: Path) -> Dataset:
    folder(path)
    examples = {
        "train": [Example("1", "Ωhat\u2028now?", ("ja",), ((Place(Span("d", 0, 3), "Ada"),),))],
        "validation": [Example("2", "And?", ())],
        "test": [Example("3", "Then?", ("a", "b"), group="g"), Example("4", "Why?", None)],
    }
    write_dataset(path, {"license": "CC0", "source": "here"}, examples, "About it.")
    found = load_dataset(path)
    assert {name: list(getattr(found, name)) for name in examples} == examples
    return found


def test_what_is_written_is_read_back_and_has_a_card(tmp_path: Path) -> None:
    written(tmp_path / "made")
    _, front, text = (tmp_path / "made" / "README.md").read_text(encoding="utf-8").split("---\n")
    counts = {"train": 1, "validation": 1, "test": 2}
    assert yaml.safe_load(front) == {"license": "CC0", "source": "here", "counts": counts}
    assert text == "\n# made\n\nAbout it.\n"


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one"), written(tmp_path / "other")
    assert one.fingerprint == other.fingerprint
    changed = folder(tmp_path / "other", test=line("Changed?"))
    assert load_dataset(changed).fingerprint != one.fingerprint
