from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.cli.main import main
from optimize.data.dataset import load_dataset
from optimize.data.example import Example, Place
from optimize.data.locating.files import line_with_evidence
from optimize.data.locating.index import SentenceIndex
from optimize.data.locating.locating import Located, locate, locate_folder
from optimize.data.locating.text import sentences, words
from optimize.data.locating.values import values
from programs.errors import ProblemsError, RagwrightError
from programs.lm import parse_lm
from programs.types import Document, Span
from tests.openai_server import OpenAIServer

BRIDGE = Document(
    "bridge.md",
    "# The Corvale bridge\n\nThe bridge at Corvale was opened on 4 July 1876 by the engineer Dr. Ada Lindqvist. It has "
    "thirty arches and is 1,250 metres long.\n\nBefore that, a ferry crossed the Marr. The ferry sank in 1871 with "
    "twelve sheep on board.\n",
)
MILL = Document(
    "mill.md",
    "# The mill\n\nThe mill of Arlow was built in 1876. Its wheel turns thirty times in a minute, and twelve people "
    "work there. Wood is kept dry in the long barn, since damp timber warps when it is sawn.\n",
)


def quotes(question: str, *answers: str, documents: tuple[Document, ...] = (BRIDGE, MILL)) -> tuple[str, list[str]]:
    """Method and quotes of what is sure; empty where nothing is."""
    (finding,) = locate(documents, [Example("q", question, answers)])
    if finding.place is None:
        return "", []
    texts = {document.id: document.text for document in documents}
    for place in finding.place.fact:
        assert texts[place.span.doc_id][place.span.start : place.span.end] == place.quote
    return finding.place.method, [place.quote for place in finding.place.fact]


@pytest.mark.parametrize(
    ("question", "answer", "method", "quote"),
    [
        ("Who opened the bridge at Corvale?", "Dr. Ada Lindqvist", "exact", "Dr. Ada Lindqvist"),
        ("Who opened the bridge at Corvale?", "dr ada LINDQVIST", "normalized", "Dr. Ada Lindqvist"),
        ("Who opened the bridge at Corvale?", "Lindqvist, Ada", "fuzzy", "Ada Lindqvist"),
        ("Who opened the bridge at Corvale?", "Dr. Ada Lindkvist", "fuzzy", "Dr. Ada Lindqvist"),
        ("When was the bridge at Corvale opened?", "July 4, 1876", "normalized", "4 July 1876"),
        ("When was the bridge at Corvale opened?", "1876-07-04", "normalized", "4 July 1876"),
        ("How many arches has the bridge?", "30", "normalized", "thirty"),
        ("How long is the Corvale bridge with its arches?", "1250 m", "normalized", "1,250 metres"),
        ("How many sheep were on board when the ferry sank?", "12 sheep", "normalized", "twelve sheep"),
    ],
)
def test_an_answer_is_found_in_any_writing(question: str, answer: str, method: str, quote: str) -> None:
    assert quotes(question, answer) == (method, [quote])


def test_the_question_chooses_among_places() -> None:
    both = ("1876",)
    assert quotes("In what year was the mill of Arlow built?", *both)[1] == ["1876"]
    (finding,) = locate([BRIDGE, MILL], [Example("q", "In what year was the mill of Arlow built?", both)])
    assert finding.place is not None and finding.place.fact[0].span.doc_id == "mill.md"
    (finding,) = locate([BRIDGE, MILL], [Example("q", "In what year was the bridge at Corvale opened?", both)])
    assert finding.place is None or finding.place.fact[0].span.doc_id == "bridge.md"


def test_a_question_that_tells_nothing_apart_is_unsure() -> None:
    (finding,) = locate([BRIDGE, MILL], [Example("q", "What year is it?", ("1876",))])
    assert finding.chosen is None and finding.why
    assert {place.quote for proposal in finding.proposals for place in proposal.fact} <= {"1876", "4 July 1876"}


def test_a_paraphrase_is_located_by_its_passage() -> None:
    method, (quote,) = quotes("Why is wood kept in the long barn?", "because wet wood would bend")
    assert method == "passage"
    assert quote == "Wood is kept dry in the long barn, since damp timber warps when it is sawn."


def test_yes_is_never_located_by_its_letters() -> None:
    trap = Document("trap.md", "Yes, said the smith. Yes was his answer to all. No, said the cook.")
    question = "Is wood kept dry in the long barn, since damp timber warps?"
    method, found = quotes(question, "yes", documents=(trap, MILL))
    assert method == "passage" and "long barn" in found[0]
    method, found = quotes("Does the smith like Fridays?", "Yes.", documents=(trap, MILL))
    assert method in ("", "passage")


def test_what_the_corpus_does_not_say_is_not_sure() -> None:
    assert quotes("Who wrote the opera about the lighthouse?", "Piet Marlow") == ("", [])


def test_copies_of_a_place_are_alternatives_of_one_fact() -> None:
    copy = Document("copy.md", BRIDGE.text)
    (finding,) = locate([BRIDGE, copy, MILL], [Example("q", "Who opened the bridge at Corvale?", ("Ada Lindqvist",))])
    ((*places,),) = finding.evidence
    assert {place.span.doc_id for place in places} == {"bridge.md", "copy.md"}


def test_places_that_fit_as_well_are_alternatives_of_one_fact() -> None:
    one = Document("one", "The old bell of Arlow was cast by Joss Farrow in spring.")
    other = Document("other", "The old bell of Arlow was cast by Joss Farrow in autumn.")
    (finding,) = locate([one, other, MILL], [Example("q", "Who cast the old bell of Arlow?", ("Joss Farrow",))])
    ((*places,),) = finding.evidence
    assert {place.span.doc_id for place in places} == {"one", "other"}


def test_a_number_is_never_nearly_another() -> None:
    asked = Example("q", "How long is the Corvale bridge with its thirty arches?", ("is 1,350 metres long",))
    (finding,) = locate([BRIDGE, MILL], [asked])
    assert {proposal.method for proposal in finding.proposals} == {"passage"}


def test_a_passage_takes_in_the_sentence_that_holds_the_answer() -> None:
    text = "The kiln at Hexby was rebuilt after the great fire of spring. Yellow brick from Yarrow replaced grey stone."
    document = Document("kiln", f"{text}\n\nNothing else is known.")
    question, answer = (
        "What was the kiln at Hexby rebuilt of after the great fire?",
        "bricks, yellow, that came from Yarrow",
    )
    assert quotes(question, answer, documents=(document, BRIDGE, MILL)) == ("passage", [text])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("twenty-five men", "25 men"),
        ("5 million", "5,000,000"),
        ("two hundred and five", "205"),
        ("seven thousand two hundred", "7 200"),
        ("eighteen eighty-four", "1884"),
        ("the 4th of July 1776", "July 4, 1776"),
        ("1776-07-04", "4 July 1776"),
        ("Mar. 1974", "March 1974"),
        ("sixth century", "6th century"),
        ("fifty per cent", "50%"),
        ("6 km", "six kilometres"),
        ("$100bn", "100 billion dollars"),
        ("Schrödinger", "SCHRODINGER"),
        ("Schro\u0308dinger's", "Schrödinger"),
        ("\uff11\uff12", "12"),
        ("salt & pepper", "salt and pepper"),
        ("the Marr", "Marr"),
    ],
)
def test_two_writings_of_the_same(one: str, other: str) -> None:
    assert [token.form for token in values(one)] == [token.form for token in values(other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [("twenty-five", "25th"), ("C++", "C"), ("5", "5 million"), ("two three", "23"), ("May", "5"), ("1.5", "15")],
)
def test_two_different_things(one: str, other: str) -> None:
    assert [token.form for token in values(one)] != [token.form for token in values(other)]


@given(st.text())
def test_tokens_lie_in_the_text_in_order(text: str) -> None:
    for tokens in (words(text), values(text)):
        starts = [token.start for token in tokens]
        assert starts == sorted(starts)
        assert all(0 <= token.start < token.end <= len(text) and token.form for token in tokens)


@given(st.text(alphabet=st.sampled_from("ab A.!?\n#-1。 \u00a0\u2028"), max_size=2000))
def test_sentences_cover_the_text(text: str) -> None:
    found = sentences(text)
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    assert all(0 < end - start <= 800 for start, end in found)
    kept = "".join(text[start:end] for start, end in found)
    assert "".join(kept.split()) == "".join(text.split())


def test_abbreviations_end_no_sentence() -> None:
    text = "Dr. A. Venn met Mr. Holt, e.g. in St. Ives. They left. It was 3.5 km.[note 1] She asked: why? Nobody knew."
    found = [text[start:end] for start, end in sentences(text)]
    assert found[0].endswith("St. Ives.") and found[1] == "They left." and len(found) == 5


WORDS = ("Straße", "naïve", "Tölz", "42", "ﬁne", "Ægir", "東京", "x2")


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    st.text(alphabet=st.sampled_from("ﬁ\u0308\u00adß .é\n"), max_size=12),
    st.sampled_from([str, str.upper, str.casefold]),
)
def test_offsets_are_those_of_the_canonical_text(answer: list[str], before: str, write: Callable[[str], str]) -> None:
    planted = " ".join(answer)
    text = f"{before} zz {planted} zz"
    (found, *_) = SentenceIndex([Document("d", text)]).occurrences([write(planted)])
    start = len(before) + len(" zz ")
    assert found.span == (start, start + len(planted))


@given(
    st.dictionaries(st.sampled_from(["id", "question", "group"]), st.text(), min_size=1),
    st.sampled_from(["missing", "empty", "spaced"]),
    st.sampled_from(["", "\r", "  "]),
)
def test_only_evidence_is_added_to_a_line(fields: dict[str, str], had: str, tail: str) -> None:
    line = json.dumps({"answers": ['"evidence": []'], **fields}, ensure_ascii=False)
    line = line if had == "missing" else line[:-1] + (', "evidence": []}' if had == "empty" else ' ,"evidence" : [ ]}')
    place = Place(Span("d", 1, 3), 'q"}')
    written = line_with_evidence(line + tail, ((place,),))
    evidence = [[{"doc_id": "d", "start": 1, "end": 3, "quote": 'q"}'}]]
    assert json.loads(written) == json.loads(line) | {"evidence": evidence}
    assert written.startswith(line[: line.rindex('"evidence"') if had != "missing" else -1].rstrip(" ,"))
    assert written.endswith("}" + tail)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unsplit data set over two documents: sure, unsure, with evidence, unanswerable and unknown."""
    path = tmp_path / "set"
    (path / "corpus").mkdir(parents=True)
    for document in (BRIDGE, MILL):
        (path / "corpus" / document.id).write_text(document.text, encoding="utf-8")
    lines = [
        '{"id":"opened", "question": "Who opened the bridge at Corvale?",  "answer": "Ada Lindqvist"}',
        '{"id": "year", "question": "What year is it?", "answers": ["1876"], "evidence": []}',
        '{"id": "known", "question": "How many arches?", "answers": ["thirty"], '
        '"evidence": [[{"doc_id": "bridge.md", "quote": "thirty arches"}]]}',
        '{"id": "none", "question": "Who built the moon?", "answers": []}',
        '{"id": "unknown", "question": "Where is the barn?", "answers": null}',
        "",
        '{"question": "How many sheep were on board when the ferry sank?", "answers": ["12"], "group": "é"}',
    ]
    (path / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")


def test_a_folder_is_written_and_nothing_else_changes(folder: Path) -> None:
    before = lines_of(folder / "questions.jsonl")
    located = locate_folder(folder)
    after = lines_of(folder / "questions.jsonl")
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True, True, True, False, True]
    assert after[0].startswith(before[0][:-1]) and json.loads(after[6])["group"] == "é"
    assert located.as_json() | {"folder": ""} == {
        "folder": "",
        "questions": 6,
        "had_evidence": 1,
        "unanswerable": 1,
        "unknown_answers": 1,
        "accepted": 0,
        "rejected": 0,
        "located": {"exact": 1, "normalized": 1, "fuzzy": 0, "passage": 0},
        "located_by_lm": 0,
        "unsure": 1,
        "nothing_found": 0,
        "measurable": {"all": 0.5, "questions": 0.5},
        "lm_calls": None,
        "written": True,
    }
    (entry,) = map(json.loads, lines_of(folder / "review.jsonl")[:-1])
    assert entry["id"] == "year" and entry["why"] and entry["accept"] is None
    assert 1 <= len(entry["proposals"]) <= 3
    again = (folder / "questions.jsonl").read_bytes()
    assert locate_folder(folder).as_json()["had_evidence"] == 3
    assert (folder / "questions.jsonl").read_bytes() == again


def review(folder: Path, accept: Any) -> None:
    """Decide the only line of a review."""
    (line,) = lines_of(folder / "review.jsonl")[:-1]
    (folder / "review.jsonl").write_text(json.dumps(json.loads(line) | {"accept": accept}) + "\n", encoding="utf-8")


def test_an_accepted_proposal_becomes_evidence(folder: Path) -> None:
    locate_folder(folder)
    wanted = json.loads(lines_of(folder / "review.jsonl")[0])["proposals"][1]["evidence"]
    review(folder, 1)
    located = locate_folder(folder)
    assert located.accepted == 1 and located.unsure == 0
    assert json.loads(lines_of(folder / "questions.jsonl")[1])["evidence"] == wanted
    assert not (folder / "review.jsonl").exists()


def test_a_proposal_accepted_too_late_changes_nothing(folder: Path) -> None:
    locate_folder(folder)
    review(folder, 0)
    text = (folder / "questions.jsonl").read_text(encoding="utf-8")
    own = '"evidence": [[{"doc_id": "mill.md", "quote": "The mill of Arlow"}]]'
    (folder / "questions.jsonl").write_text(text.replace('"evidence": []', own), encoding="utf-8")
    before = (folder / "questions.jsonl").read_bytes()
    assert locate_folder(folder).accepted == 0
    assert (folder / "questions.jsonl").read_bytes() == before


def test_a_rejected_question_is_left_alone(folder: Path) -> None:
    locate_folder(folder)
    review(folder, False)
    before = (folder / "review.jsonl").read_bytes()
    located = locate_folder(folder)
    assert (located.rejected, located.unsure) == (1, 0)
    assert (folder / "review.jsonl").read_bytes() == before


@pytest.mark.parametrize("accept", [7, -1, "0", True, 0.0])
def test_a_decision_that_cannot_be_read_stops_before_anything_is_written(folder: Path, accept: Any) -> None:
    locate_folder(folder)
    review(folder, accept)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(ProblemsError, match=r"review\.jsonl:1: 'accept'"):
        locate_folder(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_write_that_fails_leaves_everything_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        locate_folder(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_problems_are_told_with_their_lines(folder: Path) -> None:
    with (folder / "questions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "none", "question": "Twice?", "answers": ["x"]}\n{"id": "q"}\n')
    with pytest.raises(ProblemsError) as caught:
        locate_folder(folder)
    assert "questions.jsonl:8: id 'none' is already used" in str(caught.value)
    assert "questions.jsonl:9: 'question' is missing" in str(caught.value)
    (folder / "questions.jsonl").unlink()
    with pytest.raises(RagwrightError, match=r"questions\.jsonl: missing"):
        locate_folder(folder)


def test_hidden_evidence_of_the_villages_is_found_again(villages: Path, tmp_path: Path) -> None:
    folder = tmp_path / "villages"
    shutil.copytree(villages, folder)
    for name in ("train", "validation", "test"):
        file = folder / f"{name}.jsonl"
        lines = [json.loads(line) for line in lines_of(file)[:-1]]
        file.write_text("".join(json.dumps(line | {"evidence": []}) + "\n" for line in lines), encoding="utf-8")
    located = locate_folder(folder)
    truth = {example.id: example for example in load_dataset(villages).examples}
    found = [example for example in load_dataset(folder).examples if example.evidence]
    assert len(found) == sum(located.by_method.values()) >= 0.9 * len(truth)
    for example in found:
        (true,) = truth[example.id].evidence[0]
        assert any(place.span.overlap(true.span) for place in example.evidence[0])


def says(word: str) -> Callable[[dict[str, Any]], str]:
    """A model that answers every question the same."""
    return lambda body: f"[[ ## supported ## ]]\n{word}\n\n[[ ## completed ## ]]"


def asked(folder: Path, server: OpenAIServer, runs: Path, max_calls: int = 200) -> Located:
    spec = parse_lm({"model": "openai/judge", "api_base": server.url, "retries": 0, "threads": 2})
    return locate_folder(folder, lm=spec, max_calls=max_calls, runs=runs)


def test_a_language_model_makes_the_unsure_sure(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with OpenAIServer(answer=says("True")) as server:
        located = asked(folder, server, tmp_path / "runs")
        assert located.as_json()["located_by_lm"] == 1 and located.unsure == 0
        # Only what was unsure was asked about, with its passage.
        assert len(server.requests) == 1
        assert "What year is it?" in server.requests[0].prompt and "1876" in server.requests[0].prompt
        assert json.loads(lines_of(folder / "questions.jsonl")[1])["evidence"]
        again = asked(copy, server, tmp_path / "runs")
        assert len(server.requests) == 1 and again.calls is not None
        assert (again.calls.made, again.calls.cached) == (0, 1)


def test_a_language_model_that_disagrees_leaves_it_unsure(folder: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=says("False")) as server:
        located = asked(folder, server, tmp_path / "runs")
    assert located.unsure == 1 and "supported in none" in located.findings[1].why
    assert located.calls is not None and located.calls.made == len(located.findings[1].proposals)


def test_a_failed_call_leaves_the_question_unsure(folder: Path, tmp_path: Path) -> None:
    def once(body: dict[str, Any]) -> str:
        server.fail(500)
        return says("False")(body)

    with OpenAIServer(answer=once) as server:
        located = asked(folder, server, tmp_path / "runs")
    assert located.unsure == 1 and located.calls is not None and located.calls.failed == 1
    assert "failed" in json.loads(lines_of(folder / "review.jsonl")[0])["why"]
    assert sum(located.by_method.values()) == 2


def test_no_more_calls_than_allowed(folder: Path, tmp_path: Path) -> None:
    with OpenAIServer(answer=says("False")) as server:
        located = asked(folder, server, tmp_path / "runs", max_calls=1)
        assert len(server.requests) == 1
    assert located.calls is not None and (located.calls.made, located.calls.refused) == (1, 1)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ragwright(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`ragwright data locate` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ragwright", "data", "locate", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_command_says_what_it_found_and_how_to_go_on(folder: Path, ragwright: Run) -> None:
    before = (folder / "questions.jsonl").read_bytes()
    code, out, _ = ragwright(folder, "--dry-run", "--json")
    assert code == 0 and json.loads(out)["located"]["exact"] == 1
    assert (folder / "questions.jsonl").read_bytes() == before and not (folder / "review.jsonl").exists()
    code, out, err = ragwright(folder)
    assert code == 0, err
    assert "2: 1 exact, 1 normalized" in out and "unsure       1" in out and "50.0%" in out
    assert '"accept"' in out and f"ragwright data split {folder}" in out
    assert (folder / "questions.jsonl").read_bytes() != before


def test_a_wrong_model_is_told_in_one_line(folder: Path, ragwright: Run, tmp_path: Path) -> None:
    for lm in ("{model: openai/x, colour: red}", "{model: openai/x"):
        code, _, err = ragwright(folder, "--lm", lm)
        assert code == 1 and err.startswith("error: --lm:") and err.count("\n") == 1
    with OpenAIServer(key="right") as server:
        lm = f"{{model: openai/x, api_base: {server.url}, retries: 0}}"
        code, _, err = ragwright(folder, "--lm", lm, "--runs", tmp_path / "runs")
    assert code == 1 and err.count("\n") == 1 and not (folder / "review.jsonl").exists()
