"""Counting tokens, offline and the same way everywhere: chunk sizes and context sizes are in these tokens.

The tokenizer is the one inside the wordllama wheel (Llama 2's byte-pair encoding, without special tokens). A language
model's own tokenizer counts differently; one ruler for all keeps configurations comparable.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from programs.errors import RagwrightError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_NAME = "wordllama/l2_supercat"


def count_tokens(text: str) -> int:
    """Number of tokens of `text`; 0 for an empty text. Safe to call from many threads."""
    return len(_tokenizer().encode(text, add_special_tokens=False))


def count_all(texts: Sequence[str]) -> list[int]:
    """`count_tokens` of each text, in order; quicker than one by one where there are many."""
    return [len(encoding) for encoding in _tokenizer().encode_batch_fast(texts, add_special_tokens=False)]


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    # Found without importing wordllama, which would load its compiled parts for the sake of one JSON file.
    spec = importlib.util.find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise RagwrightError("the package wordllama, which holds the tokenizer, is missing: `pip install wordllama`.")
    return Tokenizer.from_file(str(Path(spec.origin).parent / "tokenizers" / "l2_supercat_tokenizer_config.json"))
