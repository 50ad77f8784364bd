from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from programs.errors import RagwrightError
from programs.score_cache import ScoreCache, open_score_cache, score_key

KEYS = [bytes([number % 256, number // 256]) for number in range(2000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "scores.sqlite"


def score_by_length(keys: list[bytes]) -> Iterator[dict[bytes, float]]:
    yield {key: float(key[0]) for key in keys}


def never(keys: list[bytes]) -> Iterator[dict[bytes, float]]:
    raise AssertionError(f"asked to score {keys}")


def test_scores_come_back_to_the_last_bit_after_reopening(path: Path) -> None:
    scores = {b"a": 0.1, b"b": -7.5e-300, b"c": 1 / 3}
    cache = ScoreCache(path)
    cache.put(scores)
    cache.close()
    assert ScoreCache(path).get([*scores, b"d"]) == scores


def test_many_are_read_and_written_at_once(path: Path) -> None:
    scores = {key: float(number) for number, key in enumerate(KEYS)}
    cache = ScoreCache(path)
    cache.put(scores)
    assert cache.get(KEYS) == scores and len(cache) == len(KEYS)
    assert cache.get([]) == {}


def test_put_is_all_or_nothing(path: Path) -> None:
    cache = ScoreCache(path)
    with pytest.raises(RagwrightError, match="cannot be written"):
        cache.put({b"a": 1.0, b"b": float("nan")})
    assert len(cache) == 0
    cache.put({b"a": 1.0})
    assert cache.get([b"a"]) == {b"a": 1.0}


@pytest.mark.parametrize("damaged", ["high", b"\xff", 7])
def test_what_is_no_score_counts_as_unknown_and_is_written_over(path: Path, damaged: object) -> None:
    cache = ScoreCache(path)
    with sqlite3.connect(path) as connection:
        # A column of numbers makes a number of 7.
        connection.execute("INSERT INTO scores VALUES (?, ?)", (b"a", damaged))
    connection.close()
    assert cache.complete([b"a"], score_by_length) == {b"a": 7.0 if damaged == 7 else 97.0}


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_text("this is not a database, but it is long enough to look like one" * 20)
    with pytest.raises(RagwrightError, match=r"x\.sqlite .*remove the file"):
        ScoreCache(path)


def test_a_damaged_file_is_explained_in_one_line(path: Path) -> None:
    cache = ScoreCache(path)
    cache.put(dict.fromkeys(KEYS, 0.5))
    cache.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(RagwrightError, match=r"scores\.sqlite cannot be read: .*remove the file") as caught:
        ScoreCache(path).get(KEYS)
    assert "\n" not in str(caught.value)


def test_only_what_is_unknown_is_scored(path: Path) -> None:
    cache = ScoreCache(path)
    cache.put({b"a": 0.5})
    asked: list[list[bytes]] = []

    def score(keys: list[bytes]) -> Iterator[dict[bytes, float]]:
        asked.append(keys)
        yield from score_by_length(keys)

    assert cache.complete([b"a", b"b"], score) == {b"a": 0.5, b"b": 98.0}
    assert cache.complete([b"b", b"a"], never) == {b"a": 0.5, b"b": 98.0}
    assert cache.complete([], never) == {}
    assert asked == [[b"b"]]


def test_parts_before_a_failure_are_kept(path: Path) -> None:
    def score(keys: list[bytes]) -> Iterator[dict[bytes, float]]:
        yield {b"a": 1.0}
        raise RagwrightError("no more")

    cache = ScoreCache(path)
    with pytest.raises(RagwrightError, match="no more"):
        cache.complete([b"a", b"b"], score)
    assert cache.get([b"a", b"b"]) == {b"a": 1.0}
    # The failure holds nobody up.
    assert cache.complete([b"a", b"b"], score_by_length) == {b"a": 1.0, b"b": 98.0}


@pytest.mark.parametrize("on_disk", [True, False])
def test_threads_that_want_the_same_score_it_once(path: Path, on_disk: bool) -> None:
    cache = ScoreCache(path if on_disk else None)
    scored: Counter[bytes] = Counter()
    lock = threading.Lock()

    def score(keys: list[bytes]) -> Iterator[dict[bytes, float]]:
        for key in keys:
            time.sleep(0.0005)
            with lock:
                scored[key] += 1
            yield {key: float(KEYS.index(key))}

    def work(number: int) -> dict[bytes, float]:
        return cache.complete(KEYS[number : number + 20], score)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, [*range(20), *range(20)]))
    assert all(scores == {KEYS[at]: float(at) for at in range(n % 20, n % 20 + 20)} for n, scores in enumerate(found))
    assert set(scored.values()) == {1} and len(scored) == len(cache) == 39


def test_a_waiting_thread_tries_for_itself_where_the_other_failed(path: Path) -> None:
    cache = ScoreCache(path)
    begun, waiting = threading.Event(), threading.Event()

    def fail(keys: list[bytes]) -> Iterator[dict[bytes, float]]:
        begun.set()
        assert waiting.wait(10)
        # The other thread has nothing to do but to wait for this one.
        time.sleep(0.02)
        raise RagwrightError("lost")
        yield {}

    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(cache.complete, [b"a"], fail)
        assert begun.wait(10)
        waiting.set()
        assert cache.complete([b"a"], score_by_length) == {b"a": 97.0}
        with pytest.raises(RagwrightError, match="lost"):
            failing.result()


def test_processes_share_the_file(path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from programs.score_cache import ScoreCache
        cache = ScoreCache(Path(sys.argv[1]))
        for number in range(300):
            key = bytes([number % 100])
            cache.complete([key], lambda keys: [{key: float(key[0]) for key in keys}])
        print(len(cache))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate()[0].strip() for worker in workers] == ["100"] * 3
    assert ScoreCache(path).get([bytes([7])]) == {bytes([7]): 7.0}


def test_one_cache_is_open_for_a_folder(tmp_path: Path) -> None:
    cache = open_score_cache(tmp_path)
    assert open_score_cache(tmp_path / ".") is cache
    cache.put({b"a": 1.0})
    del cache
    assert open_score_cache(tmp_path).get([b"a"]) == {b"a": 1.0}


def test_a_cleaned_folder_gets_a_new_cache(tmp_path: Path) -> None:
    cache = open_score_cache(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    again = open_score_cache(tmp_path)
    assert again is not cache
    again.put({b"a": 1.0})
    assert (tmp_path / "scores.sqlite").is_file()


def test_without_a_folder_nothing_is_shared_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = open_score_cache(None), open_score_cache(None)
    one.put({b"a": 1.0})
    assert one.get([b"a"]) == {b"a": 1.0} and other.get([b"a"]) == {}
    assert list(tmp_path.iterdir()) == []


# Few letters, so that parts of one triple often make up another.
TRIPLES = st.tuples(*[st.text(alphabet="a\0,1é\ud800", max_size=4)] * 3)


@settings(derandomize=True, deadline=None)
@given(TRIPLES, TRIPLES)
@example(("a\0", "b", "c"), ("a", "\0b", "c"))
@example(("a", "", "a"), ("a", "a", ""))
def test_keys_are_equal_where_all_parts_are(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (score_key(*one) == score_key(*other)) == (one == other)
