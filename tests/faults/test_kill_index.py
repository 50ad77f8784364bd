"""An index whose builder is killed is built again; builders at work at the same time end with one good index."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.index import Index, open_index
from programs.types import Document

CONFIG = PipelineConfig(chunk_size=32)
SIZE = 1500
HERE = str(Path(__file__).parent)


def corpus() -> Corpus:
    words = ("harbour", "ship", "quay", "crane", "anchor", "tide", "sail", "rope", "storm", "cargo", "map")
    return Corpus.from_documents(
        Document(f"{n:04}", f"The {words[n % 11]} of pier {n} and the {words[n // 11 % 11]} {n * n}")
        for n in range(SIZE)
    )


def builder(runs: Path) -> subprocess.Popen[bytes]:
    code = f"""
        import sys; sys.path.insert(0, {HERE!r})
        from pathlib import Path
        from test_kill_index import *
        open_index(Path({str(runs)!r}), corpus(), CONFIG, served=True)
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])


def assert_whole(index: Index) -> None:
    """Every chunk is there, and each is found by its own vector."""
    assert len(index.chunks) == SIZE
    everything = index.vectors_of(np.arange(SIZE))
    found = index.nearest(everything[::50], 1)
    assert [int(ranking.positions[0]) for ranking in found] == list(range(0, SIZE, 50))
    assert not list(index.folder.parent.rglob("*.building"))


@pytest.mark.parametrize("part", [".*.building", "*/.chroma-*.building"], ids=["chunks", "store"])
def test_what_a_killed_builder_left_is_not_used(tmp_path: Path, part: str) -> None:
    process = builder(tmp_path)
    begun = time.monotonic()
    while not list((tmp_path / "indexes").glob(part)):
        assert process.poll() is None and time.monotonic() - begun < 60, "the builder never came to this part"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "indexes").glob(part)), "it was killed while it built"
    assert_whole(open_index(tmp_path, corpus(), CONFIG, served=True))


def test_two_builders_end_with_one_good_index(tmp_path: Path) -> None:
    running = [builder(tmp_path) for _ in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    (folder,) = (path for path in (tmp_path / "indexes").iterdir() if path.is_dir())
    assert len(list(folder.glob("chroma-*"))) == len(list(folder.glob("vectors-*"))) == 1
    assert_whole(open_index(tmp_path, corpus(), CONFIG, served=True))
