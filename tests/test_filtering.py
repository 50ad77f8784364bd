from __future__ import annotations

from typing import Any

import pytest

from programs.errors import RagwrightError
from programs.filtering import matches, parse_filter

BOOK: dict[str, Any] = {"lang": "en", "year": 2021, "tags": ["rag", "search"], "draft": False, "edition": "10"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("lang=en", True),
        ("lang = en , year >= 2021", True),
        ("lang=de", False),
        ("lang!=de", True),
        ("year>2021", False),
        ("year<2021.5", True),
        ("edition>9", True),
        ("tags=rag", True),
        ("tags!=rag", False),
        ("tags!=sql", True),
        ("draft=false", True),
        ("missing=1", False),
        ("missing!=1", True),
        ("lang>year", False),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert matches(parse_filter(text), BOOK) is expected


@pytest.mark.parametrize("text", ["lang", "=en", "lang==en", "lang=en,,", "lang~en"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RagwrightError, match=r"filter: .* is not `key OPERATOR value`; operators: = != >= <= > <"):
        parse_filter(text)
