from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from programs.tokens import count_all, count_tokens


def test_counts_are_those_of_the_llama_tokenizer() -> None:
    assert count_tokens("") == 0
    assert count_tokens("Hello world") == 2
    assert count_tokens("a\n\nb") == 4


def test_a_character_outside_the_vocabulary_counts_its_bytes() -> None:
    assert count_tokens("🦛") == 5


def test_many_texts_count_as_one_by_one() -> None:
    texts = ["", "one two three", "日本語のテキスト", "x" * 1000, "\n\n", "🦛🦛"]
    assert count_all(texts) == [count_tokens(text) for text in texts]


def test_threads_count_the_same() -> None:
    texts = [f"text number {number} " * number for number in range(100)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(count_tokens, texts)) == count_all(texts)


def test_counting_loads_neither_wordllama_nor_the_network() -> None:
    code = "import sys; from programs.tokens import count_tokens; count_tokens('a'); print('wordllama' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
