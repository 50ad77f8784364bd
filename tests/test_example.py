from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.data.example import Example, ExampleError, Place, parse_example
from programs.types import Document, Span

TEXT = "Ada wrote a note. Bob read the note. 😀 end"
DOCUMENTS = {"d": Document("d", TEXT)}


def parse(**line: object) -> tuple[Example, list[str]]:
    return parse_example({"question": "Who?", "answers": ["Ada"], **line}, DOCUMENTS, "line-1")


def place(**keys: object) -> list[object]:
    return [[{"doc_id": "d", **keys}]]


def message(line: object) -> str:
    with pytest.raises(ExampleError) as error:
        parse_example(line, DOCUMENTS, "line-1")
    return str(error.value)


def test_full_line_is_read_and_written_back() -> None:
    line = {
        "id": "q1",
        "question": "Who wrote?",
        "answers": ["Ada", "Ada L."],
        "evidence": [[{"doc_id": "d", "start": 0, "end": 3, "quote": "Ada"}]],
        "group": "people",
    }
    example, notes = parse_example(line, DOCUMENTS, "line-1")
    assert example.evidence == ((Place(Span("d", 0, 3), "Ada"),),)
    assert example.documents == {"d"}
    assert example.as_json() == line
    assert notes == []


def test_short_line_gets_its_id_from_the_reader() -> None:
    example, _ = parse_example({"question": "Who?", "answer": "Ada"}, DOCUMENTS, "line-1")
    assert example == Example("line-1", "Who?", ("Ada",))


def test_empty_answers_mean_that_abstaining_is_right() -> None:
    assert parse(answers=[])[0].answers == ()


def test_answers_of_null_are_not_known_and_stay_so() -> None:
    example, _ = parse(answers=None, evidence=place(quote="Bob"))
    assert example.answers is None
    assert parse_example(json.loads(json.dumps(example.as_json())), DOCUMENTS, "") == (example, [])


def test_offsets_count_code_points_and_bring_their_quote() -> None:
    start = TEXT.index("😀")
    example, _ = parse(evidence=place(start=start, end=start + 1))
    assert example.evidence[0][0].quote == "😀"


def test_quote_that_moved_is_found_again_and_noted() -> None:
    example, notes = parse(evidence=place(start=3, end=6, quote="Bob"))
    assert example.evidence[0][0].span == Span("d", 18, 21)
    assert notes == ["a quote in 'd' moved from 3 to 18"]


def test_quote_without_offsets_is_located_without_a_note() -> None:
    example, notes = parse(evidence=place(quote="Bob read"))
    assert example.evidence[0][0].span == Span("d", 18, 26)
    assert notes == []


def test_quote_that_occurs_twice_needs_its_right_offset() -> None:
    first, second = TEXT.index("note"), TEXT.rindex("note")
    example, _ = parse(evidence=place(start=second, end=second + 4, quote="note"))
    assert example.evidence[0][0].span.start == second
    with pytest.raises(ExampleError, match="'note' is not at 1 and occurs more than once in 'd'"):
        parse(evidence=place(start=1, end=5, quote="note"))
    assert first != second


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (5, "a JSON object is needed, got int"),
        ({"answers": []}, "'question' is missing"),
        ({"question": "  ", "answers": []}, "'question' must be a non-empty string, got '  '"),
        ({"question": "Who?"}, "give 'answers'"),
        ({"question": "Who?", "answers": [], "answer": "Ada"}, "give 'answers'"),
        ({"question": "Who?", "answers": None, "answer": "Ada"}, "give 'answers'"),
        ({"question": "Who?", "answer": None}, "'answers' must be a list of non-empty strings, got [None]"),
        ({"question": "Who?", "answers": [None]}, "'answers' must be a list of non-empty strings, got [None]"),
        ({"question": "Who?", "answers": "Ada"}, "'answers' must be a list of non-empty strings, got 'Ada'"),
        ({"question": "Who?", "answers": ["Ada", " "]}, "'answers' must be a list of non-empty strings"),
        ({"question": "Who?", "answers": ["\ud800"]}, "'answers' must be a list of non-empty strings"),
        ({"question": "Who?", "answers": [], "id": 7}, "'id' must be a non-empty string, got 7"),
        ({"question": "Who?", "answers": [], "id": ""}, "'id' must be a non-empty string, got ''"),
        ({"question": "Who?", "answers": [], "Answer": ""}, "unknown key 'Answer'; known keys: answer, answers,"),
        ({"question": "Who?", "answers": [], "evidence": {}}, "'evidence' is a list of facts"),
        ({"question": "Who?", "answers": [], "evidence": [[]]}, "'evidence' is a list of facts"),
        ({"question": "Who?", "answers": [], "evidence": [["d"]]}, "a place has the keys doc_id, end, quote, start"),
    ],
)
def test_mistake_is_named_with_its_value(line: object, expected: str) -> None:
    assert expected in message(line)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"doc_id": "e", "quote": "Ada"}, "no document 'e' in the corpus"),
        ({"doc_id": ["d"], "quote": "Ada"}, "'doc_id' must be a non-empty string"),
        ({"start": 0, "end": 999}, "span 0:999 does not fit 'd'"),
        ({"start": 3, "end": 3}, "span 3:3 does not fit 'd'"),
        ({"start": False, "end": True}, "span False:True does not fit 'd'"),
        ({"start": 0, "end": 3, "quote": 5}, "'quote' must be a non-empty string, got 5"),
        ({"start": 0, "end": 3, "quote": "Eve"}, "the quote 'Eve' is not in 'd'"),
        ({}, "span None:None does not fit 'd'"),
    ],
)
def test_place_that_cannot_be_found_is_refused(keys: dict[str, object], expected: str) -> None:
    assert expected in message({"question": "Who?", "answers": [], "evidence": place(**keys)})


spans = st.tuples(st.integers(0, len(TEXT) - 1), st.integers(1, 9)).map(lambda p: (p[0], min(len(TEXT), p[0] + p[1])))


@given(st.lists(st.lists(spans, min_size=1, max_size=3), max_size=3), st.lists(st.text("ab ", min_size=1)))
def test_json_round_trip(facts: list[list[tuple[int, int]]], texts: list[str]) -> None:
    evidence = tuple(tuple(Place(Span("d", s, e), TEXT[s:e]) for s, e in fact) for fact in facts)
    example = Example("x", "Why?", tuple(text for text in texts if text.strip()), evidence)
    assert parse_example(json.loads(json.dumps(example.as_json())), DOCUMENTS, "") == (example, [])
