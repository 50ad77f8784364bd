from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from programs import corpus as corpus_module
from programs.corpus import Corpus, find_corpus, load_corpus
from programs.errors import ProblemsError, RagwrightError
from programs.types import Document


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def jsonl(folder: Path, *records: Any) -> Path:
    file = folder / "corpus.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def only_document(path: Path) -> Document:
    (document,) = load_corpus(path).documents
    return document


# Folders


def test_a_folder_is_read_with_its_subfolders_and_ids_are_relative_paths(tmp_path: Path) -> None:
    write(tmp_path, b_DOT_txt="two", a__c_DOT_md="# Three\n", _DOT_hidden_DOT_md="no", _DOT_git__x_DOT_md="no")
    write(tmp_path, picture_DOT_png=b"\x89PNG", upper_DOT_MD="four")
    corpus = load_corpus(tmp_path)
    assert [document.id for document in corpus.documents] == ["a/c.md", "b.txt", "upper.MD"]
    assert corpus.document("b.txt").text == "two"


def test_titles_come_from_the_heading_the_title_tag_or_the_file_name(tmp_path: Path) -> None:
    write(
        tmp_path, a_DOT_md="```\n# code\n```\n\nThe *Real* One\n===\n\ntext", b_DOT_md="no heading", c_DOT_txt="# not"
    )
    write(tmp_path, d_DOT_html="<title>The\n page</title><h1>Other</h1>", e_DOT_htm="<h2>Only &amp; this</h2>x")
    titles = {document.id: document.title for document in load_corpus(tmp_path).documents}
    assert titles == {"a.md": "The *Real* One", "b.md": "b", "c.txt": "c", "d.html": "The page", "e.htm": "Only & this"}


def test_front_matter_is_no_heading(tmp_path: Path) -> None:
    write(tmp_path, a_DOT_md="---\nauthor: x\n---\n\n# Title\n")
    assert only_document(tmp_path).title == "Title"


def test_text_is_cleaned_and_nothing_else_is_changed(tmp_path: Path) -> None:
    write(tmp_path, a_DOT_txt="\ufeffone\r\ntwo\rthree\x00 e\u0301 \u00e9 ﬁ\n")
    assert only_document(tmp_path).text == "one\ntwo\nthree\ufffd e\u0301 \u00e9 ﬁ\n"


def test_bytes_that_are_not_utf8_are_named_with_their_place(tmp_path: Path) -> None:
    write(tmp_path, good_DOT_txt="good", bad_DOT_txt=b"caf\xe9 au lait", worse_DOT_md="x".encode("utf-16"))
    with pytest.raises(ProblemsError) as caught:
        load_corpus(tmp_path)
    bad, worse = caught.value.problems
    assert bad.place.endswith("bad.txt") and "byte 3 (0xe9)" in bad.message and "UTF-8" in bad.mend
    assert worse.place.endswith("worse.md") and "byte 0" in worse.message


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "MAX_DOCUMENT_BYTES", 1_000_000)
    write(tmp_path, big_DOT_txt="x" * 1_200_000)
    with pytest.raises(ProblemsError, match=r"big\.txt: has 1\.2 MB; a document may have at most 1 MB \(split"):
        load_corpus(tmp_path)


def test_empty_documents_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, a_DOT_txt=" \n\t", b_DOT_txt="b", c_DOT_html="<script>var x = 1;</script>")
    corpus = load_corpus(tmp_path)
    assert [document.id for document in corpus.documents] == ["b.txt"]
    assert corpus.warnings == ("a.txt: no text, left out", "c.html: no text, left out")


def test_a_corpus_without_text_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, a_DOT_txt=" ")
    with pytest.raises(RagwrightError, match="no text: 1 document"):
        load_corpus(tmp_path)


def test_a_folder_without_documents_says_what_is_read(tmp_path: Path) -> None:
    write(tmp_path, a_DOT_pdf=b"%PDF")
    with pytest.raises(RagwrightError, match=r"no documents found; files that are read end in \.md, .*\.html"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(("name", "reason"), [("missing", "does not exist"), ("x.csv", "neither a folder nor")])
def test_a_path_that_is_no_corpus_is_an_error(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(RagwrightError, match=reason):
        load_corpus(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes only on POSIX")
def test_a_file_name_that_is_not_unicode_is_a_problem(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("the file system refuses such names")
    with pytest.raises(ProblemsError, match="not valid Unicode") as caught:
        load_corpus(tmp_path)
    str(caught.value).encode()


# HTML


def html(tmp_path: Path, page: str) -> str:
    return only_document(write(tmp_path, page_DOT_html=page)).text


def test_html_becomes_the_visible_text_with_markdown_headings(tmp_path: Path) -> None:
    page = """<html><head><title>T</title><style>p {color: red}</style></head><body>
    <nav><a href="/">Home</a></nav><h1>Main  <em>title</em></h1><p>First
    paragraph &amp; <b>bold</b>text.</p><div>Second<br>line</div>
    <ul><li>one</li><li><p>two</p></li></ul><script>alert("<p>no</p>")</script><h3>Sub</h3>End.</body></html>"""
    assert html(tmp_path, page) == (
        "# Main title\n\nFirst paragraph & boldtext.\n\nSecond\nline\n\n- one\n- two\n\n### Sub\n\nEnd."
    )


def test_html_tables_keep_rows_and_cells_apart(tmp_path: Path) -> None:
    page = "<table><tr><th>Size</th><th>Cost</th></tr><tr><td>128</td><td>1.33</td></tr></table>"
    assert html(tmp_path, page) == "Size | Cost\n128 | 1.33"


def test_html_preformatted_text_is_fenced_as_it_is(tmp_path: Path) -> None:
    page = "<p>Code:</p><pre># comment\n  if x &lt; 1:\n</pre><p>after</p>"
    assert html(tmp_path, page) == "Code:\n\n```\n# comment\n  if x < 1:\n\n```\n\nafter"


@pytest.mark.parametrize("page", ["<p>a<svg/>b</p>", "a<nav>x<nav>y</nav>z</nav>b", "</nav>a<iframe></iframe>b"])
def test_html_skips_end_where_they_should(tmp_path: Path, page: str) -> None:
    assert html(tmp_path, page) == "ab"


# JSON lines


def test_json_lines_are_read(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"id": "b", "text": "B\r\nb \ud800", "title": "Bee"},
        "",
        {"id": "a", "text": "A", "metadata": {"n": 1}},
    )
    corpus = load_corpus(file)
    assert corpus.documents == (Document("a", "A", "", {"n": 1}), Document("b", "B\nb \ufffd", "Bee"))


def test_all_problems_of_json_lines_are_reported_with_their_lines(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"id": "a", "text": "A"},
        "{not json",
        {"id": "a", "text": "again"},
        {"id": "b", "text": "B", "url": "x"},
        {"text": "no id"},
        {"id": 7, "text": "number"},
        ["list"],
        {"id": " ", "text": "blank"},
        '{"id": "\\ud800", "text": "surrogate"}',
    )
    with pytest.raises(ProblemsError) as caught:
        load_corpus(file)
    problems = caught.value.problems
    assert [problem.place for problem in problems] == [f"{file}:{line}" for line in range(2, 10)]
    expected = [
        "not JSON",
        "'a' is already in line 1",
        "unknown key 'url'",
        "'id' is missing",
        "'id' must be a str, got 7",
    ]
    for problem, text in zip(problems, [*expected, "a list instead", "blank", "not valid Unicode"], strict=True):
        assert text in problem.message
    assert "id, metadata, text, title" in problems[2].mend


def test_empty_json_lines_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match="has no lines"):
        load_corpus(jsonl(tmp_path))


# The corpus itself


def test_documents_are_ordered_and_unique() -> None:
    corpus = Corpus.from_documents([Document("b", "B"), Document("a", "A")])
    assert [document.id for document in corpus.documents] == ["a", "b"]
    with pytest.raises(RagwrightError, match="the id 'a'"):
        Corpus.from_documents([Document("a", "A"), Document("a", "B")])
    with pytest.raises(RagwrightError, match="no document 'c'"):
        corpus.document("c")


def test_the_fingerprint_follows_content_and_not_order() -> None:
    one, other = Document("a", "A"), Document("b", "B")
    base = Corpus.from_documents([one, other]).fingerprint
    assert Corpus.from_documents([other, one]).fingerprint == base
    changed = [Document("b", "C"), Document("b", "B", title="t"), Document("c", "B")]
    assert len({base, *(Corpus.from_documents([one, document]).fingerprint for document in changed)}) == 4


def test_the_fingerprint_does_not_confuse_ids_with_texts() -> None:
    assert (
        Corpus.from_documents([Document("a", "bc")]).fingerprint
        != Corpus.from_documents([Document("ab", "c")]).fingerprint
    )


def test_the_corpus_of_a_data_set_is_found(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match="has no corpus"):
        find_corpus(tmp_path)
    file = jsonl(tmp_path, {"id": "a", "text": "A"})
    assert find_corpus(tmp_path) == file
    (tmp_path / "corpus").mkdir()
    with pytest.raises(RagwrightError, match="both"):
        find_corpus(tmp_path)
    file.unlink()
    assert find_corpus(tmp_path) == tmp_path / "corpus"
