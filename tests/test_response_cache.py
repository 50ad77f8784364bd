from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from programs.errors import RagwrightError
from programs.response_cache import ResponseCache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "responses.sqlite"


def test_a_value_comes_back_after_reopening(path: Path) -> None:
    value = {"text": "naïve — 漢字 \u2028", "usage": {"input": 3}, "usd": None}
    cache = ResponseCache(path)
    cache.put("k", value)
    cache.close()
    assert ResponseCache(path).get("k") == value


def test_an_unknown_key_is_none(path: Path) -> None:
    assert ResponseCache(path).get("k") is None


def test_put_replaces(path: Path) -> None:
    cache = ResponseCache(path)
    cache.put("k", {"n": 1})
    cache.put("k", {"n": 2})
    assert cache.get("k") == {"n": 2}
    assert len(cache) == 1


@pytest.mark.parametrize("damaged", ["{", "", "[1]", "null", b"\xff\xfe"])
def test_a_damaged_row_is_a_miss_and_can_be_written_over(path: Path, damaged: str | bytes) -> None:
    cache = ResponseCache(path)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO responses VALUES ('k', ?)", (damaged,))
    assert cache.get("k") is None
    cache.put("k", {"n": 1})
    assert cache.get("k") == {"n": 1}


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_text("this is not a database, but it is long enough to look like one" * 20)
    with pytest.raises(RagwrightError, match=r"x\.sqlite"):
        ResponseCache(path)


def test_many_threads_write_and_read(path: Path) -> None:
    cache = ResponseCache(path)

    def work(number: int) -> bool:
        cache.put(f"k{number % 50}", {"n": number % 50})
        return cache.get(f"k{number % 50}") == {"n": number % 50}

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(400)))
    assert len(cache) == 50


def test_what_was_put_survives_a_kill(path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from programs.response_cache import ResponseCache
        cache = ResponseCache(Path(sys.argv[1]))
        for number in range(1000000):
            cache.put(str(number), {"n": number})
            print(number, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(100)][-1]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = ResponseCache(path)
    assert all(cache.get(str(number)) == {"n": number} for number in range(told + 1))
    cache.put("after", {"n": 0})
    assert cache.get("after") == {"n": 0}


def test_alone_lets_one_thread_in_per_key(path: Path) -> None:
    cache = ResponseCache(path)
    inside: list[str] = []
    most = 0
    entered = threading.Barrier(2, timeout=10)

    def same() -> None:
        nonlocal most
        with cache.alone("k"):
            inside.append("k")
            most = max(most, len(inside))
            inside.pop()

    def other(key: str) -> None:
        with cache.alone(key):
            entered.wait()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: same(), range(200)))
        list(pool.map(other, ["a", "b"]))
    assert most == 1
