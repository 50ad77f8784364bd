"""Text as locating compares it: words in one spelling, and sentences, both with exact offsets.

Every token keeps the characters that it was read from, so what is found in the compared form is known in the canonical
text to the character, whatever normalization does to lengths.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or sign of a text.

    Attributes:
        form: How it is compared.
        start: Offset of its first character.
        end: Offset after its last character.
        others: Further forms that it is found by, such as the year of a date.
    """

    form: str
    start: int
    end: int
    others: tuple[str, ...] = ()


_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# What stands inside a word without ending it: combining accents, soft hyphens, characters of no width.
_INSIDE = "\u0300-\u036f\u00ad\u200b-\u200d\u2060"
_SPACES = " \u00a0\u2009\u202f"
_TOKENS = re.compile(
    rf"(?<![\w.,])\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?![\w.,]\d)"
    r"|\d+(?:[.,]\d+)+(?!\w)"
    rf"|[{_CJK}]"
    r"|['\u2019]s(?!\w)"
    rf"|[^\W_{_CJK}](?:[^\W_{_CJK}]|[{_INSIDE}])*"
    # Signs that tell answers apart: C++, 5 %, 20 °C, A → B.
    r"|[%\u2030\u00b0$\u20ac\u00a3\u00a5+&#@\u2190-\u22ff]"
)
_NUMBER = re.compile(rf"\d{{1,3}}(?:[{_SPACES},]\d{{3}})+(?:\.\d+)?")
_SEPARATORS = re.compile(f"[{_SPACES},]")
_NOT_COMPARED = re.compile(f"[{_INSIDE}]")
_ARTICLES = frozenset({"the", "a", "an"})


def words(text: str) -> list[Token]:
    """The words, numbers and signs of a text, without case, accents, punctuation, English articles and possessive s.

    Chinese and Japanese characters are words of their own. Articles stay where nothing else is there.
    """
    found = [Token(fold(match.group()), match.start(), match.end()) for match in _TOKENS.finditer(text)]
    return [token for token in found if token.form not in _ARTICLES and token.form[:1] not in "'\u2019"] or found


@lru_cache(maxsize=200_000)
def fold(word: str) -> str:
    """A word in the spelling that is compared: NFKC, no case, no accents, no thousands separators."""
    if word in ("&", "\uff06"):
        return "and"
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", word).casefold())
    plain = unicodedata.normalize("NFC", _NOT_COMPARED.sub("", plain))
    return _SEPARATORS.sub("", plain) if _NUMBER.fullmatch(plain) else plain


_SHORTENED = (
    "mr mrs ms dr prof st sr jr vs etc no nos vol vols fig figs eq ch pp e.g i.e cf ca c approx inc ltd co corp dept "
    "est gen col capt lt sgt rev hon gov sen rep al ed eds jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k"
)
_ABBREVIATIONS = frozenset(_SHORTENED.split())
_LONGEST = 800
_BLOCK_START = re.compile(r"\n[ \t]*(?:\n\s*|(?=[#|>]|[-*+][ \t]|\d{1,3}[.)][ \t]))")
_HEADING = re.compile(r"^#{1,6}[ \t].*$", re.MULTILINE)
_END = re.compile(
    # A full stop with what closes behind it, before white space and anything but a small letter.
    r"[.!?]['\")\]\u201d\u2019\u00bb]*(?:\[[^\]\n]{1,30}\])*(?=\s+[^\W_a-z]|\s+['\"(\[\u201c\u2018\u00ab*_]|\s*$)"
    r"|[\u3002\uff01\uff1f][\u300d\u300f\uff09]*"
)


def paragraphs(text: str) -> list[Range]:
    """The blocks between blank lines without white space at their ends; headings, list items and table rows apart."""
    cuts = {0, len(text)}
    cuts.update(match.end() for match in _BLOCK_START.finditer(text))
    cuts.update(match.end() for match in _HEADING.finditer(text))
    return list(_trimmed(text, sorted(cuts)))


def sentences(text: str) -> list[Range]:
    """The sentences of a text in order, none of them across paragraphs; one above 800 characters is cut."""
    return [piece for block in paragraphs(text) for part in _ended(text, block) for piece in _short(text, part)]


def _ended(text: str, block: Range) -> Iterator[Range]:
    """The parts of a paragraph up to each end of a sentence."""
    start, end = block
    cuts = [start]
    for match in _END.finditer(text, start, end):
        if match.group()[0] != "." or not _abbreviated(text, cuts[-1], match.start()):
            cuts.append(match.end())
    yield from _trimmed(text, [*cuts, end])


def _abbreviated(text: str, start: int, stop: int) -> bool:
    """Whether the full stop at `stop` belongs to an abbreviation or an initial."""
    before = text[max(start, stop - 12) : stop].split()
    word = before[-1].strip("([\"'\u201c") if before else ""
    return word.casefold() in _ABBREVIATIONS or (len(word) == 1 and word.isupper())


def _short(text: str, piece: Range) -> Iterator[Range]:
    """The piece, cut at line ends, else at pauses, at spaces, or anywhere, where it is too long."""
    start, end = piece
    while end - start > _LONGEST:
        window = text[start : start + _LONGEST]
        cut = max(window.rfind("\n"), window.rfind("; "), window.rfind(": "), window.rfind("\u3001"))
        cut = cut if cut > _LONGEST // 4 else window.rfind(" ")
        stop = start + (cut + 1 if cut > 0 else _LONGEST)
        yield from _trimmed(text, [start, stop])
        start = stop
    yield from _trimmed(text, [start, end])


def _trimmed(text: str, cuts: Sequence[int]) -> Iterator[Range]:
    for start, end in pairwise(cuts):
        piece = text[start:end]
        if stripped := piece.strip():
            first = start + len(piece) - len(piece.lstrip())
            yield first, first + len(stripped)
