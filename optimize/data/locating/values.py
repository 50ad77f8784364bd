"""Numbers, dates and units by value, so that `thirty days` is found where the text says `30 days`. In English only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from optimize.data.locating.text import Token, words

_Read = tuple[Token, int]
"""A token made of several, and the position after them."""

_UNITS = {
    "percent": "% percent",
    "km": "km kilometre kilometres kilometer kilometers",
    "m": "m metre metres meter meters",
    "cm": "cm centimetre centimetres centimeter centimeters",
    "mm": "mm millimetre millimetres millimeter millimeters",
    "nm": "nm nanometre nanometres nanometer nanometers",
    "mi": "mi mile miles",
    "ft": "ft foot feet",
    "kg": "kg kilogram kilograms kilogramme kilogrammes",
    "g": "g gram grams gramme grammes",
    "lb": "lb lbs pound pounds",
    "t": "t ton tons tonne tonnes",
    "l": "l litre litres liter liters",
    "h": "h hr hrs hour hours",
    "min": "min mins minute minutes",
    "s": "s sec secs second seconds",
    "$": "$ dollar dollars usd",
    "\u20ac": "\u20ac euro euros eur",
}
UNITS = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings.split()}


def _listed(names: str) -> list[str]:
    return names.split()


_ONES = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ONES_ORDINAL = _listed(
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth"
)
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_SMALL = {word: value for value, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_ORDINAL = {word: value for value, word in enumerate(_ONES_ORDINAL)} | {
    word[:-1] + "ieth": 20 + 10 * i for i, word in enumerate(_TENS)
}
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12}
_MONTH_NAMES = _listed(
    "january jan february feb march mar april apr may may june jun july jul august aug september sep october oct "
    "november nov december dec"
)
_MONTHS = {name: at // 2 + 1 for at, name in enumerate(_MONTH_NAMES)} | {"sept": 9}
_CURRENCIES = ("$", "\u20ac", "\u00a3", "\u00a5")
_BEGINNINGS = frozenset((*_SMALL, *_ORDINAL, *_MONTHS, *_CURRENCIES))
# What may stand between the parts of one number.
_JOINTS = (" ", "-", "\n", "\u00a0", "\u2011", "")


def values(text: str, tokens: Sequence[Token] | None = None) -> list[Token]:
    """The words of a text with numbers, dates and units by value.

    `twenty-five` and `25` become the same token, and so do `5 million` and `5,000,000`, `4 July 1776` and
    `July 4th, 1776`, `fourth` and `4th`, and after a number `%` and `per cent`, `km` and `kilometres`. A date is also
    found by its parts.

    Args:
        text: What to read.
        tokens: Its `words`, where they are known.
    """
    tokens = words(text) if tokens is None else tokens
    found: list[Token] = []
    at = 0
    while at < len(tokens):
        sign = tokens[at].form
        token, at = (_valued(text, tokens, at) if sign[0].isdigit() or sign in _BEGINNINGS else None) or (
            tokens[at],
            at + 1,
        )
        found.append(token)
        if token.form[0].isdigit() and sign in _CURRENCIES:
            found.append(Token(sign, token.start, token.end))
        elif token.form[0].isdigit() and at < len(tokens) and (unit := _unit(tokens, at)):
            found.append(unit[0])
            at = unit[1]
    return found


def _valued(text: str, tokens: Sequence[Token], at: int) -> _Read | None:
    return _money(text, tokens, at) or _date(text, tokens, at) or _number(text, tokens, at)


def _unit(tokens: Sequence[Token], at: int) -> _Read | None:
    """A unit of measure behind a number, in one spelling."""
    token = tokens[at]
    if token.form == "per" and at + 1 < len(tokens) and tokens[at + 1].form == "cent":
        return Token("percent", token.start, tokens[at + 1].end), at + 2
    return (Token(UNITS[token.form], token.start, token.end), at + 1) if token.form in UNITS else None


def _money(text: str, tokens: Sequence[Token], at: int) -> _Read | None:
    """A number with its currency's sign before it."""
    if tokens[at].form not in _CURRENCIES or at + 1 == len(tokens):
        return None
    amount, stop = _number(text, tokens, at + 1) or (tokens[at + 1], at + 2)
    return (Token(amount.form, tokens[at].start, amount.end), stop) if amount.form[0].isdigit() else None


def _number(text: str, tokens: Sequence[Token], at: int) -> _Read | None:
    """A number in figures or in words."""
    first = tokens[at]
    if not first.form[0].isdigit():
        return _number_words(text, tokens, at)
    if ordinal := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", first.form):
        return Token(f"{ordinal[1]}.", first.start, first.end), at + 1
    figures = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)(bn)?", first.form)
    stop = at + 1
    scale = _SCALES["bn"] if figures and figures[2] else 1
    if stop < len(tokens) and tokens[stop].form in _SCALES and _joined(text, tokens, stop):
        scale *= _SCALES[tokens[stop].form]
        stop += 1
    if figures is None or scale == 1:
        return None
    return Token(_shown(float(figures[1]) * scale), first.start, tokens[stop - 1].end), stop


def _number_words(text: str, tokens: Sequence[Token], at: int) -> _Read | None:
    if tokens[at].form in _ORDINAL:
        return Token(f"{_ORDINAL[tokens[at].form]}.", tokens[at].start, tokens[at].end), at + 1
    if tokens[at].form not in _SMALL:
        return None
    total, current, stop = 0, _SMALL[tokens[at].form], at + 1
    ordinal = False
    while stop < len(tokens) and _joined(text, tokens, stop) and not ordinal:
        form = tokens[stop].form
        after = tokens[stop + 1].form if stop + 1 < len(tokens) else ""
        if form == "and" and (current or total) and current % 100 == 0 and after in _SMALL:
            stop += 1
            continue
        small = _SMALL.get(form, _ORDINAL.get(form))
        if small is not None and _continues(current, small):
            current, ordinal = current + small, form in _ORDINAL
        elif form in _SMALL and total == 0 and 11 <= current <= 20 and _SMALL[form] >= 10:
            # `eighteen eighty-four` is a year.
            current = current * 100 + _SMALL[form]
        elif form == "hundred" and 0 < current < 100:
            current *= 100
        elif form in _SCALES and current:
            total, current = total + current * _SCALES[form], 0
        else:
            break
        stop += 1
    form = _shown(total + current) + ("." if ordinal else "")
    return Token(form, tokens[at].start, tokens[stop - 1].end), stop


def _continues(current: int, small: int) -> bool:
    """Whether a small number goes on after what was read: ones after tens, both after hundreds and thousands."""
    if current % 100 == 0:
        return 0 < small < 100
    return current % 10 == 0 and current % 100 >= 20 and 0 < small < 10


def _joined(text: str, tokens: Sequence[Token], at: int) -> bool:
    return text[tokens[at - 1].end : tokens[at].start] in _JOINTS


def _shown(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _date(text: str, tokens: Sequence[Token], at: int) -> _Read | None:
    """A month with a day, a year or both, or a date as in ISO 8601."""
    start = tokens[at].start
    iso = re.match(r"(\d{4})-(\d\d)-(\d\d)(?!\w)", text[start : start + 11])
    if iso and 1 <= int(iso[2]) <= 12 and 1 <= int(iso[3]) <= 31 and at + 3 <= len(tokens):
        return _date_token(int(iso[1]), int(iso[2]), int(iso[3]), start, tokens[at + 2].end), at + 3
    forms = [token.form for token in tokens[at : at + 3]]
    if len(forms) == 3 and forms[1] == "of" and _day(forms[0]) and forms[2] in _MONTHS:
        month, day, stop = forms[2], forms[0], at + 3
    elif len(forms) > 1 and _day(forms[0]) and forms[1] in _MONTHS:
        month, day, stop = forms[1], forms[0], at + 2
    elif len(forms) > 1 and forms[0] in _MONTHS and _day(forms[1]):
        month, day, stop = forms[0], forms[1], at + 2
    elif len(forms) > 1 and forms[0] in _MONTHS and _year(forms[1]):
        month, day, stop = forms[0], "", at + 1
    else:
        return None
    year = _year(tokens[stop].form) if stop < len(tokens) else 0
    if year and text[tokens[stop - 1].end : tokens[stop].start].strip(" .,\n"):
        year = 0
    stop += bool(year)
    return _date_token(year, _MONTHS[month], _day(day), start, tokens[stop - 1].end), stop


def _date_token(year: int, month: int, day: int, start: int, end: int) -> Token:
    parts = [f"0000-{month:02}-{day:02}", f"{year:04}-{month:02}-00"] if year and day else []
    return Token(f"{year:04}-{month:02}-{day:02}", start, end, (*parts, str(year)) if year else ())


def _day(form: str) -> int:
    found = re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?", form)
    return int(found[1]) if found and 1 <= int(found[1]) <= 31 else 0


def _year(form: str) -> int:
    return int(form) if re.fullmatch(r"1\d{3}|20\d\d", form) else 0
