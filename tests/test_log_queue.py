from __future__ import annotations

import threading
import time
from itertools import pairwise

from optimize.tracking.log_queue import LogQueue, TryLaterError


def test_jobs_are_done_in_order_in_one_other_thread() -> None:
    queue, done = LogQueue(), list[tuple[int, int]]()
    for number in range(50):
        queue.put(f"job-{number}", lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
    assert queue.drain(5) == 0
    assert [number for number, _ in done] == list(range(50))
    assert len({thread for _, thread in done}) == 1
    assert done[0][1] != threading.get_ident()


def test_a_newer_job_takes_the_place_of_one_that_waits() -> None:
    queue, gate, done = LogQueue(), threading.Event(), list[str]()
    queue.put("first", lambda: gate.wait(5) and None)
    for number in range(1000):
        queue.put("trial", lambda number=number: done.append(f"trial {number}"))  # type: ignore[misc]
        queue.put("other", lambda number=number: done.append(f"other {number}"))  # type: ignore[misc]
    assert len(queue) <= 3
    gate.set()
    assert queue.drain(5) == 0
    assert done == ["trial 999", "other 999"]


def test_what_cannot_be_done_now_is_done_later_and_first() -> None:
    queue, down, done = LogQueue(pause_s=60), True, list[str]()

    def job(name: str) -> None:
        if down:
            raise TryLaterError
        done.append(name)

    queue.put("one", lambda: job("one"))
    queue.put("two", lambda: job("two"))
    # It is tried once more, because somebody waits, and then given up.
    assert queue.drain(5) == 2
    assert done == []
    down = False
    assert queue.drain(5) == 0
    assert done == ["one", "two"]


def test_after_a_pause_it_is_tried_again_by_itself() -> None:
    queue, tries = LogQueue(pause_s=0.05), list[float]()
    ended = threading.Event()

    def job() -> None:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise TryLaterError
        ended.set()

    queue.put("job", job)
    assert ended.wait(5)
    assert all(later - earlier >= 0.05 for earlier, later in pairwise(tries))


def test_a_defect_is_kept_and_the_others_are_done() -> None:
    queue, done = LogQueue(), list[str]()
    queue.put("bad", lambda: [][0])
    queue.put("worse", lambda: {}["x"])
    queue.put("good", lambda: done.append("good"))
    assert queue.drain(5) == 0
    assert isinstance(queue.error, IndexError)
    assert done == ["good"]


def test_waiting_ends_when_one_job_does_not() -> None:
    queue, gate = LogQueue(), threading.Event()
    queue.put("hangs", lambda: gate.wait(5) and None)
    queue.put("waits", lambda: None)
    begun = time.monotonic()
    assert queue.drain(0.1) == 2
    queue.stop()
    assert time.monotonic() - begun < 2
    queue.put("too late", lambda: None)
    gate.set()
    assert queue.drain(5) == 0


def test_all_together_may_take_so_long() -> None:
    queue = LogQueue()
    for number in range(100):
        queue.put(str(number), lambda: time.sleep(0.02))
    assert queue.drain(5, total_s=0.1) > 50
    queue.stop()


def test_one_can_go_first_and_work_is_counted() -> None:
    queue, gate, done = LogQueue(), threading.Event(), list[str]()
    queue.put("begins", lambda: gate.wait(5) and None)
    queue.put("second", lambda: done.append("second"))
    queue.put("urgent", lambda: done.append("urgent"), first=True)
    time.sleep(0.05)
    gate.set()
    assert queue.drain(5) == 0
    assert done == ["urgent", "second"]
    assert 0.03 < queue.seconds < 5
