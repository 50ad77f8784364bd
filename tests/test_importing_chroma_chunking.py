from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optimize.data.dataset import SPLITS, Dataset, load_dataset
from optimize.data.importing.chroma_chunking import NEAR, read_chroma_chunking
from optimize.data.importing.common import import_chroma_chunking
from programs.errors import ProblemsError, RagwrightError

FILLER = "The lane is muddy — and the 😀 children walk along. "
Row = dict[str, Any]


def text(count: int = 6, apart: int = 2 * NEAR) -> str:
    """A text without headings or blank lines: `count` wells, each some way behind the one before."""
    parts = [f"Well {n} is {n}0 m deep, and old. ".ljust(apart, "x")[:-1] + " " for n in range(count)]
    return FILLER + "".join(parts)


def reference(content: str, source: str, start: int | None = None) -> dict[str, Any]:
    first = source.index(content) if start is None else start
    return {"content": content, "start_index": first, "end_index": first + len(content)}


def row(question: str, *references: dict[str, Any], corpus: str = "wells") -> Row:
    return {"question": question, "references": json.dumps(references), "corpus_id": corpus}


def wells(source: str, count: int = 6) -> list[Row]:
    return [row(f"How deep is well {n}?", reference(f"Well {n} is {n}0 m deep", source)) for n in range(count)]


def folder(path: Path, rows: list[Row], **texts: str) -> Path:
    (path / "corpora").mkdir(parents=True)
    for name, source in texts.items():
        (path / "corpora" / f"{name}.md").write_bytes(source.encode())
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, ["question", "references", "corpus_id"])
    writer.writeheader()
    writer.writerows(rows)
    (path / "questions_df.csv").write_bytes(table.getvalue().encode())
    return path


def imported(path: Path) -> Dataset:
    import_chroma_chunking(path, path.parent / "out", 0)
    found = load_dataset(path.parent / "out")
    assert found.notes == ()
    return found


def problems(path: Path) -> list[str]:
    with pytest.raises(ProblemsError) as error:
        import_chroma_chunking(path, path.parent / "out", 0)
    assert not (path.parent / "out").exists()
    return [str(problem).removeprefix(f"{path}/") for problem in error.value.problems]


def test_each_reference_is_a_fact_with_one_place(tmp_path: Path) -> None:
    source = text()
    both = [reference("Well 1 is 10 m deep, ", source), reference(" Well 2 is", source)]
    found = imported(
        folder(tmp_path / "c", [*wells(source), row("Which?", *both, both[0])], the_ponds="A pond.", wells=source)
    )
    titles = {document.id: document.title for document in found.corpus.documents}
    assert titles == {"the_ponds": "the ponds", "wells": "wells"}
    assert found.corpus.document("wells").text == source
    asked = next(e for e in found.examples if e.question == "Which?")
    assert asked.answers is None
    assert [[place.quote for place in fact] for fact in asked.evidence] == [["Well 1 is 10 m deep,"], ["Well 2 is"]]
    assert asked.evidence[1][0].span.start == source.index("Well 2 is")


def as_is(source: str) -> str:
    return source


def windows(source: str) -> str:
    return source.replace("\n", "\r\n")


def marked(source: str) -> str:
    return "\ufeff" + source


def marked_windows(source: str) -> str:
    return marked(windows(source))


@pytest.mark.parametrize(
    ("file", "counted"),
    [
        (as_is, as_is),
        (windows, as_is),
        (windows, windows),
        (marked, as_is),
        (marked, marked),
        (marked_windows, as_is),
        (marked_windows, marked),
        (marked_windows, marked_windows),
    ],
)
def test_line_ends_and_byte_order_mark_shift_no_offset(
    tmp_path: Path, file: Callable[[str], str], counted: Callable[[str], str]
) -> None:
    source = text().replace("muddy ", "muddy\n\n").replace(" deep, and", " deep,\nand")
    seen = counted(source)
    rows = [row(f"Well {n}?", reference(counted(f"{n}0 m deep,\nand").lstrip("\ufeff"), seen)) for n in range(1, 6)]
    found = imported(folder(tmp_path / "c", rows, wells=file(source)))
    assert found.corpus.document("wells").text == source
    assert sorted(e.evidence[0][0].quote for e in found.examples) == [f"{n}0 m deep,\nand" for n in range(1, 6)]


def test_repeated_words_are_taken_where_the_offset_is(tmp_path: Path) -> None:
    source = FILLER + text()
    second = source.index("The lane", 1)
    found = imported(
        folder(tmp_path / "c", [*wells(source), row("?", reference("The lane", source, second))], wells=source)
    )
    asked = next(e for e in found.examples if e.question == "?")
    assert asked.evidence[0][0].span.start == second


def test_questions_with_near_evidence_are_in_one_split(tmp_path: Path) -> None:
    source = (
        text(40, apart=NEAR // 3) + "y" * NEAR * 2 + text(1) + "".join(f" Pond {n} ".ljust(2 * NEAR) for n in range(9))
    )
    rows = wells(source, 40) + [row(f"Pond {n}?", reference(f"Pond {n}", source)) for n in range(9)]
    rows.append(row("Two ponds?", reference("Pond 2", source), reference("Pond 7", source)))
    found = imported(folder(tmp_path / "c", rows, wells=source))
    split_of = {example.question: split for split in SPLITS for example in getattr(found, split)}
    assert len({split_of[f"How deep is well {n}?"] for n in range(40)}) == 1
    assert split_of["Pond 2?"] == split_of["Pond 7?"] == split_of["Two ponds?"]
    groups = {example.question: example.group for example in found.examples}
    assert len(set(groups.values())) == 1 + 8
    assert groups["How deep is well 30?"] == f"wells@{source.index('Well 0')}"


starts = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), min_size=1, max_size=4)


@settings(max_examples=40)
@example([[(0, 40)], [(1, 1)], [(45, 1)]])
@given(st.lists(starts, min_size=1, max_size=12))
def test_groups_are_what_nearness_joins(tmp_path_factory: pytest.TempPathFactory, questions: list[Any]) -> None:
    source = "z" * 100 * 250
    evidence = [[(100 * start, 100 * (start + length)) for start, length in places] for places in questions]
    rows = [row(f"{n}?", *(reference(source[a:b], source, a) for a, b in e)) for n, e in enumerate(evidence)]
    path = folder(tmp_path_factory.mktemp("h") / "c", rows, wells=source)
    groups = [example.group for example in read_chroma_chunking(path).examples]
    joined = [{n} for n in range(len(evidence))]
    for one in range(len(evidence)):
        for other in range(one):
            gap = min(max(a, c) - min(b, d) for a, b in evidence[one] for c, d in evidence[other])
            if gap < NEAR and joined[one] is not joined[other]:
                union = joined[one] | joined[other]
                for number in union:
                    joined[number] = union
    for one in range(len(evidence)):
        assert {n for n in range(len(evidence)) if groups[n] == groups[one]} == joined[one]


def test_evidence_in_one_text_is_not_near_that_in_another(tmp_path: Path) -> None:
    source = text()
    rows = [
        *wells(source),
        *(row(f"{line['question']} Ponds!", reference("Well 5", source), corpus="ponds") for line in wells(source)),
    ]
    groups = [e.group for e in read_chroma_chunking(folder(tmp_path / "c", rows, ponds=source, wells=source)).examples]
    assert len(set(groups[:6])) == 6
    assert set(groups[6:]) == {f"ponds@{source.index('Well 5')}"}


def test_card_says_how_it_was_split(tmp_path: Path) -> None:
    source = text()
    summary = import_chroma_chunking(folder(tmp_path / "c", wells(source), wells=source), tmp_path / "out", 0)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license: see the source\nsource: see the source\nformat: Chroma chunking evaluation\n" in card
    assert f"less than {NEAR} characters apart" in card
    assert (summary.documents, summary.with_evidence, summary.duplicates) == (1, 6, 0)


def test_rows_that_cannot_be_used_are_all_named_with_their_lines(tmp_path: Path) -> None:
    source = text()
    rows = [
        row("Two\nlines?", reference("Well 1", source)),
        row("Moved?", reference("Well 1", source, 3)),
        row("Shorter?", reference("Well 1", source) | {"end_index": 60}),
        row("Elsewhere?", reference("Well 1", source), corpus="ponds"),
        row(" ", reference("Well 1", source)),
        row("Nothing?"),
        row("Blank?", reference(" ", source)),
        row("Broken?") | {"references": "[{"},
        row("Key?") | {"references": '[{"content": "Well 1", "start_index": 1}]'},
        row("Before?", reference("Well 1", source, -5)),
    ]
    start = source.index("Well 1")
    assert problems(folder(tmp_path / "c", rows, wells=source)) == [
        "questions_df.csv:4: the reference 'Well 1' is not at 3:9 of 'wells'",
        f"questions_df.csv:5: the reference 'Well 1' is not at {start}:60 of 'wells'",
        "questions_df.csv:6: no text corpora/ponds.md; there are: wells",
        "questions_df.csv:7: the question is blank",
        "questions_df.csv:8: references: none, so that nothing can be measured",
        f"questions_df.csv:9: the reference at {source.index(' ')}:{source.index(' ') + 1} of 'wells' is blank",
        "questions_df.csv:10: references: invalid JSON: EOF while parsing an object at line 1 column 2",
        "questions_df.csv:11: references: 0: end_index: field required",
        "questions_df.csv:12: references: 0: start_index: input should be greater than or equal to 0",
    ]


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    source = text()
    path = folder(tmp_path / "c", wells(source), wells=source)
    table = (path / "questions_df.csv").read_text(encoding="utf-8")

    def message() -> str:
        with pytest.raises(RagwrightError) as error:
            import_chroma_chunking(path, tmp_path / "out", 0)
        assert "\n" not in str(error.value)
        return str(error.value)

    (path / "questions_df.csv").write_text(table.replace("corpus_id", "corpus"), encoding="utf-8")
    assert "questions_df.csv: no column corpus_id; columns: question, references, corpus" in message()
    (path / "questions_df.csv").write_bytes(b"question\xff")
    assert "questions_df.csv: not UTF-8 at byte 8" in message()
    (path / "questions_df.csv").unlink()
    assert "questions_df.csv: no such file" in message()
    (path / "corpora" / "wells.md").write_bytes(b"\xff")
    assert "wells.md: not UTF-8 at byte 0" in message()
    (path / "corpora" / "wells.md").unlink()
    assert "corpora: no .md files" in message()
    with pytest.raises(RagwrightError, match="already exists"):
        import_chroma_chunking(path, path, 0)
