from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.errors import RagwrightError
from programs.vector_cache import VectorCache, Vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors" / "model.sqlite"


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def unit(count: int, dimensions: int = 8, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def overwrite(path: Path, blob: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (blob, key(1)))
    connection.close()


def test_vectors_come_back_to_the_bit_after_reopening(path: Path) -> None:
    vectors = unit(3000)
    vectors[7] = 0
    cache = VectorCache(path)
    assert cache.dimensions is None and cache.get([key(0)]) == {}
    cache.put([key(number) for number in range(3000)], vectors)
    cache.close()
    again = VectorCache(path)
    found = again.get([key(number) for number in range(5000)])
    assert again.dimensions == 8 and len(found) == len(again) == 3000
    assert np.array_equal(np.stack([found[key(number)] for number in range(3000)]), vectors)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    writes=st.lists(st.lists(st.integers(0, 30), unique=True, max_size=10), max_size=5),
    asked=st.lists(st.integers(0, 40), max_size=10),
)
def test_it_holds_the_last_vector_put_under_each_key(writes: list[list[int]], asked: list[int]) -> None:
    expected: dict[bytes, Vectors] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = VectorCache(Path(folder) / "x.sqlite")
        for seed, numbers in enumerate(writes):
            rows = unit(len(numbers), seed=seed)
            cache.put([key(number) for number in numbers], rows)
            expected |= zip(map(key, numbers), rows, strict=True)
        found = cache.get([key(number) for number in asked])
        assert found.keys() == expected.keys() & {key(number) for number in asked}
        assert all(np.array_equal(found[known], expected[known]) for known in found)
        cache.close()


NAN = np.full(8, np.nan, dtype=np.float32).tobytes()
LONG = np.full(8, 3e38, dtype=np.float32).tobytes()


@pytest.mark.parametrize("blob", [b"", b"xyz", NAN, LONG, "text", 7, unit(1, 9)[0].tobytes()])
def test_a_damaged_row_is_missing_and_can_be_written_over(path: Path, blob: object) -> None:
    cache = VectorCache(path)
    cache.put([key(1), key(2)], unit(2))
    overwrite(path, blob)
    assert cache.get([key(1), key(2)]).keys() == {key(2)}
    cache.put([key(1)], unit(1))
    assert np.array_equal(cache.get([key(1)])[key(1)], unit(1)[0])


def one_line(error: pytest.ExceptionInfo[RagwrightError], path: Path) -> bool:
    return str(path) in str(error.value) and "remove the file" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_cache_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is not a database, but it is long enough to look like one" * 20)
    with pytest.raises(RagwrightError) as error:
        VectorCache(path)
    assert one_line(error, path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("a file")
    with pytest.raises(RagwrightError) as error:
        VectorCache(tmp_path / "vectors" / "model.sqlite")
    assert one_line(error, tmp_path / "vectors" / "model.sqlite")


def test_pages_of_rubbish_are_explained(path: Path) -> None:
    cache = VectorCache(path)
    cache.put([key(number) for number in range(2000)], unit(2000, 64))
    cache.close()
    content = bytearray(path.read_bytes())
    content[16_384:] = os.urandom(len(content) - 16_384)
    path.write_bytes(content)
    with pytest.raises(RagwrightError) as error:
        VectorCache(path).get([key(number) for number in range(2000)])
    assert one_line(error, path)


def test_vectors_of_another_length_are_refused(path: Path) -> None:
    cache = VectorCache(path)
    cache.put([key(1)], unit(1, 8))
    for other in (cache, VectorCache(path)):
        with pytest.raises(RagwrightError, match="holds vectors of 8 numbers, but the model now gives 9"):
            other.put([key(2)], unit(1, 9))
    assert len(cache) == 1


def test_many_threads_write_and_read(path: Path) -> None:
    cache = VectorCache(path)
    vectors = unit(50)

    def work(number: int) -> bool:
        cache.put([key(number % 50)], vectors[number % 50][None])
        return np.array_equal(cache.get([key(number % 50)])[key(number % 50)], vectors[number % 50])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(400)))
    assert len(cache) == 50


WRITER = """
    import hashlib, sys
    from pathlib import Path
    import numpy as np
    from programs.vector_cache import VectorCache
    cache, rows = VectorCache(Path(sys.argv[1])), np.eye(8, dtype=np.float32)
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        cache.put([hashlib.sha256(str(number).encode()).digest()], rows[[number % 8]])
        print(number, flush=True)
"""


def start_writer(path: Path, start: int, end: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(start), str(end)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_share_a_file(path: Path) -> None:
    writers = [start_writer(path, start, 300) for start in (0, 100, 200)]
    assert [writer.communicate()[0].count("\n") for writer in writers] == [300, 200, 100]
    found = VectorCache(path).get([key(number) for number in range(400)])
    assert len(found) == 300 and all(found[key(number)][number % 8] == 1 for number in range(300))


def test_what_was_put_survives_a_kill(path: Path) -> None:
    writer = start_writer(path, 0, 10**9)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(100)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    cache = VectorCache(path)
    assert len(cache.get([key(number) for number in range(told + 1)])) == told + 1
    cache.put([key(5000)], unit(1))
    assert len(cache.get([key(5000)])) == 1
