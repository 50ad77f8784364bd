from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from dspy.lm15 import AuthError, Config, Message, Request, Response, ServerError, TextPart, Usage

from programs.completion import BARE
from programs.errors import BudgetExhaustedError, EndpointError
from programs.gate import Gate
from programs.metering import CallRecord, MeteredEngine, collect_calls
from programs.response_cache import ResponseCache
from programs.rollout import rollout


def request(text: str = "hello", **config: Any) -> Request:
    return Request("m", (Message.user(text),), config=Config(**{"temperature": 0.0, **config}))


class Sender:
    """Answers with a number that counts up, so that a new answer can be told from a kept one."""

    def __init__(self, delay_s: float = 0.0, before: Callable[[Request], None] = lambda request: None) -> None:
        self.sent: list[Request] = []
        self.delay_s, self.before = delay_s, before
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Response:
        with self.lock:
            self.sent.append(request)
            number = len(self.sent)
        time.sleep(self.delay_s)
        self.before(request)
        message = Message(role="assistant", parts=(TextPart(f"answer {number}"),))
        return Response(None, "m", message, "stop", Usage(10, 2, cache_read_tokens=4))


@pytest.fixture
def cache(tmp_path: Path) -> ResponseCache:
    return ResponseCache(tmp_path / "responses.sqlite")


def engine(sender: Callable[[Request], Response], identity: str = "here", **settings: Any) -> MeteredEngine:
    return MeteredEngine(sender, Gate("m at here", "KEY"), {"model": identity}, **settings)


def test_a_second_call_is_answered_from_the_cache_with_the_first_ones_tokens_and_time(cache: ResponseCache) -> None:
    sender = Sender(delay_s=0.05)
    with collect_calls() as calls:
        metered = engine(sender, cache=cache, price=lambda request, response: 0.25)
        first = metered.complete(request())
        second = engine(sender, cache=cache).complete(request())
    assert (first.text, second.text, len(sender.sent)) == ("answer 1", "answer 1", 1)
    sent, kept = calls
    assert (sent.paid, kept.paid) == (True, False)
    assert sent.latency_s == kept.latency_s >= 0.05
    assert (kept.prompt_tokens, kept.completion_tokens, kept.cached_prompt_tokens, kept.usd) == (10, 2, 4, 0.25)
    assert sent.key == kept.key


@pytest.mark.parametrize(
    "other",
    [
        request("other"),
        request(max_tokens=3),
        request(stop=("\n",)),
        request(seed=1),
        request(response_format={"type": "json_object"}),
        request(extensions=BARE),
    ],
)
def test_another_request_is_another_call(cache: ResponseCache, other: Request) -> None:
    metered = engine(Sender(), cache=cache)
    assert metered.complete(request()).text != metered.complete(other).text


def test_another_endpoint_or_repeat_is_another_call(cache: ResponseCache) -> None:
    sender = Sender()
    for metered in (
        engine(sender, cache=cache),
        engine(sender, "there", cache=cache),
        engine(sender, cache=cache, repeat=1),
    ):
        metered.complete(request())
        metered.complete(request())
    assert len(sender.sent) == 3


def test_without_a_cache_every_call_is_sent() -> None:
    sender = Sender()
    metered = engine(sender)
    assert [metered.complete(request()).text for _ in range(2)] == ["answer 1", "answer 2"]


def test_rollouts_differ_when_sampled_and_are_one_at_temperature_zero(cache: ResponseCache) -> None:
    metered = engine(Sender(), cache=cache, seed=0)

    def ask(number: int | None, temperature: float) -> str | None:
        with rollout(number):
            return metered.complete(request(temperature=temperature)).text

    assert ask(1, 0.0) == ask(2, 0.0) == ask(None, 0.0)
    assert ask(1, 1.0) == ask(1, 1.0)
    assert len({ask(number, 1.0) for number in (None, 1, 2)}) == 3


def test_the_candidates_of_one_call_differ_and_are_kept(cache: ResponseCache) -> None:
    sender = Sender()
    metered = engine(sender, cache=cache, seed=0)

    def ask() -> list[str | None]:
        with rollout(None):
            return [metered.complete(request(temperature=1.0)).text for _ in range(3)]

    assert ask() == ask() == ["answer 1", "answer 2", "answer 3"]
    assert len({sent.config.seed for sent in sender.sent}) == 3


def test_a_seed_is_put_in_only_where_there_is_none() -> None:
    sender = Sender()
    metered = engine(sender, seed=7)
    metered.complete(request())
    metered.complete(request(seed=3))
    engine(sender).complete(request())
    assert [sent.config.seed for sent in sender.sent] == [7, 3, None]


def test_equal_calls_at_the_same_time_become_one(cache: ResponseCache) -> None:
    sender = Sender(delay_s=0.05)
    records: list[CallRecord] = []
    metered = engine(sender, cache=cache, on_call=records.append)
    with ThreadPoolExecutor(16) as pool:
        texts = set(pool.map(lambda _: metered.complete(request()).text, range(16)))
    assert texts == {"answer 1"}
    assert sum(record.paid for record in records) == 1
    assert len(records) == 16


def test_collectors_nest_and_follow_copied_contexts_only() -> None:
    metered = engine(Sender())
    with collect_calls() as outer, ThreadPoolExecutor(1) as pool:
        with collect_calls() as inner:
            metered.complete(request())
            pool.submit(copy_context().run, metered.complete, request()).result()
            pool.submit(metered.complete, request()).result()
        metered.complete(request())
    assert (len(inner), len(outer)) == (2, 3)


def test_a_refused_call_is_not_sent_and_kept_answers_need_no_budget(cache: ResponseCache) -> None:
    sender, left = Sender(), [1]

    def admit() -> None:
        if not left.pop():
            raise BudgetExhaustedError("used up")

    left[:] = [0, 1]
    metered = engine(sender, cache=cache, admit=admit)
    metered.complete(request())
    metered.complete(request())
    with collect_calls() as calls, pytest.raises(BudgetExhaustedError):
        metered.complete(request("other"))
    assert (len(sender.sent), calls, metered.errors) == (1, [], 0)


def test_a_damaged_answer_is_asked_for_again(cache: ResponseCache) -> None:
    sender = Sender()
    metered = engine(sender, cache=cache)
    with collect_calls() as calls:
        metered.complete(request())
    for damage in ({}, {"response": {}}, {"response": {"model": 3}, "latency_s": 1, "usd": None}):
        cache.put(calls[0].key, damage)
        assert metered.complete(request()).text == f"answer {len(sender.sent)}"
    assert len(sender.sent) == 4


def test_a_bug_in_the_sender_is_recorded_and_stays_a_bug() -> None:
    def broken(request: Request) -> Response:
        raise KeyError("oops")

    metered = engine(broken)
    with collect_calls() as calls, pytest.raises(KeyError):
        metered.complete(request())
    assert (calls[0].error, calls[0].paid, metered.errors) == ("KeyError: 'oops'", True, 1)


def test_a_copied_engine_is_the_same_engine() -> None:
    metered = engine(Sender())
    assert copy.deepcopy({"lm": metered})["lm"] is metered


def refusing(error: Exception) -> Callable[[Request], None]:
    from dspy.clients.errors import wrap_error

    def refuse(request: Request) -> None:
        raise wrap_error(error, model="m")

    return refuse


def test_a_refused_key_costs_one_request_however_many_threads() -> None:
    sender = Sender(delay_s=0.02, before=refusing(AuthError("bad key s3cret", status=401)))
    metered = MeteredEngine(sender, Gate("m at here", "MY_KEY", ["s3cret"]), {})

    def ask(number: int) -> str:
        with pytest.raises(EndpointError) as caught:
            metered.complete(request(str(number)))
        return str(caught.value)

    with ThreadPoolExecutor(16) as pool:
        [message] = set(pool.map(ask, range(32)))
    assert len(sender.sent) == 1
    assert metered.errors == 32
    assert message == metered.refusal
    assert "m at here: the key was refused; put a valid key into MY_KEY" in message
    assert "s3cret" not in message


def test_calls_go_one_at_a_time_until_the_first_answer() -> None:
    running, most_before, most_after = [0], [0], [0]
    answered = threading.Event()
    lock = threading.Lock()

    def watch(_: Request) -> None:
        with lock:
            running[0] += 1
            most = most_after if answered.is_set() else most_before
            most[0] = max(most[0], running[0])
        time.sleep(0.03)
        with lock:
            running[0] -= 1
            answered.set()

    metered = engine(Sender(before=watch))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: metered.complete(request(str(number))), range(24)))
    assert most_before[0] == 1
    assert most_after[0] > 1


def test_after_an_answer_a_failing_server_is_that_calls_own_problem() -> None:
    from dspy.utils.exceptions import LMServerError

    failing = [False]

    def sometimes(request: Request) -> None:
        if failing[0]:
            refusing(ServerError("busy s3cret", status=500))(request)

    sender = Sender(before=sometimes)
    metered = MeteredEngine(sender, Gate("m at here", "KEY", ["s3cret"]), {})
    metered.complete(request())
    failing[0] = True
    with collect_calls() as calls, pytest.raises(LMServerError) as caught:
        metered.complete(request())
    assert "s3cret" not in f"{caught.value}{caught.value.message}{calls[0].error}"
    assert caught.value.__cause__ is None
    failing[0] = False
    assert metered.complete(request()).text == "answer 3"
    assert (metered.errors, metered.refusal) == (1, None)


def test_a_key_revoked_half_way_ends_it() -> None:
    refuse = [False]

    def revoked(request: Request) -> None:
        if refuse[0]:
            refusing(AuthError("revoked", status=401))(request)

    sender = Sender(before=revoked)
    metered = engine(sender)
    metered.complete(request())
    refuse[0] = True
    for _ in range(3):
        with pytest.raises(EndpointError):
            metered.complete(request())
    assert len(sender.sent) == 2
