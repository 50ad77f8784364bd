from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from dspy.utils import exceptions
from dspy.utils.exceptions import LMError

import programs.gate
from programs.errors import BudgetExhaustedError, EndpointError
from programs.gate import DOUBTED_AFTER, IN_A_ROW, Gate

SILENCES = [
    exceptions.LMTransportError("refused"),
    exceptions.LMTimeoutError("no answer in time"),
    exceptions.LMTimeoutError("no answer in time", status=408),
]
SERVER_ERRORS = [
    exceptions.LMServerError("bad gateway", status=502),
    exceptions.LMTimeoutError("gateway timeout", status=504),
]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.gate, "PAUSE_S", 0.0)


class Endpoint:
    """Answers what it is asked, or fails as it is told."""

    def __init__(self, fails: Callable[[str], LMError | None] = lambda text: None) -> None:
        self.fails = fails
        self.sent: list[str] = []
        self._lock = threading.Lock()

    def ask(self, gate: Gate, text: str) -> str:
        def send() -> str:
            with self._lock:
                self.sent.append(text)
            error = self.fails(text)
            if error is not None:
                raise error
            return text.upper()

        return gate.call(send)


def dead(error: LMError) -> Callable[[str], LMError]:
    return lambda text: error


def opened(endpoint: Endpoint) -> Gate:
    gate = Gate("m at here", "KEY", ["s3cret"])
    assert endpoint.ask(gate, "known") == "KNOWN"
    endpoint.sent.clear()
    return gate


@pytest.mark.parametrize("error", SILENCES)
def test_the_first_call_without_a_reply_ends_it(error: LMError) -> None:
    endpoint, gate = Endpoint(dead(error)), Gate("m at here", "KEY")
    for _ in range(3):
        with pytest.raises(EndpointError, match="m at here: the endpoint did not answer; check that the server runs"):
            endpoint.ask(gate, "a")
    assert endpoint.sent == ["a"]


@pytest.mark.parametrize("error", SILENCES)
def test_a_server_that_falls_silent_is_given_up_at_the_first_call_that_notices(error: LMError) -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = dead(error)
    with pytest.raises(EndpointError) as caught:
        endpoint.ask(gate, "a")
    assert str(caught.value) == gate.refusal
    assert "m at here: the endpoint no longer answers" in str(caught.value)
    assert "start again: what was done is kept" in str(caught.value)
    assert endpoint.sent == ["a"] + ["known"] * (IN_A_ROW - 1)
    with pytest.raises(EndpointError):
        endpoint.ask(gate, "b")
    assert len(endpoint.sent) == IN_A_ROW


@pytest.mark.parametrize("error", SILENCES)
def test_a_call_that_alone_gets_no_reply_is_at_fault_itself(error: LMError) -> None:
    endpoint = Endpoint(lambda text: error if text == "poison" else None)
    gate = opened(endpoint)
    for _ in range(20):
        with pytest.raises(type(error)):
            endpoint.ask(gate, "poison")
    assert gate.refusal is None
    assert endpoint.sent == ["poison", "known"] * 20
    assert endpoint.ask(gate, "a") == "A"


def test_a_server_that_comes_back_in_time_goes_on() -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = lambda text: SILENCES[0] if len(endpoint.sent) < IN_A_ROW else None
    with pytest.raises(exceptions.LMTransportError):
        endpoint.ask(gate, "a")
    assert endpoint.ask(gate, "b") == "B"


@pytest.mark.parametrize("error", SERVER_ERRORS)
def test_server_errors_are_their_calls_own_until_there_are_many_in_a_row(error: LMError) -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = dead(error)
    for number in range(DOUBTED_AFTER - 1):
        with pytest.raises(type(error)):
            endpoint.ask(gate, str(number))
    assert len(endpoint.sent) == DOUBTED_AFTER - 1
    with pytest.raises(EndpointError, match="no longer answers"):
        endpoint.ask(gate, "last")
    assert len(endpoint.sent) == IN_A_ROW


@pytest.mark.parametrize("error", SERVER_ERRORS)
def test_many_calls_that_fail_because_of_what_they_ask_leave_the_endpoint_alive(error: LMError) -> None:
    endpoint = Endpoint(lambda text: None if text == "known" else error)
    gate = opened(endpoint)
    for number in range(10 * DOUBTED_AFTER):
        with pytest.raises(type(error)):
            endpoint.ask(gate, str(number))
    assert endpoint.sent.count("known") == 10
    assert gate.refusal is None


@pytest.mark.parametrize(
    "error",
    [
        exceptions.LMRateLimitError("slow down", status=429),
        exceptions.LMInvalidRequestError("what?", status=400),
        exceptions.LMUnexpectedError("odd"),
    ],
)
def test_limits_and_refusals_of_one_call_are_no_sign_of_death(error: LMError) -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = dead(error)
    for _ in range(3 * IN_A_ROW):
        with pytest.raises(type(error)):
            endpoint.ask(gate, "a")
    gate.confirm()
    assert len(endpoint.sent) == 3 * IN_A_ROW


def test_a_first_call_that_meets_a_server_error_gets_the_answer_of_its_probe() -> None:
    endpoint, gate = Endpoint(), Gate("m at here", "KEY")
    endpoint.fails = lambda text: SERVER_ERRORS[0] if len(endpoint.sent) < 5 else None
    assert endpoint.ask(gate, "a") == "A"
    assert len(endpoint.sent) == 5


@pytest.mark.parametrize("error", [*SERVER_ERRORS, exceptions.LMRateLimitError("slow down", status=429)])
def test_a_server_that_only_ever_fails_is_given_up(error: LMError) -> None:
    endpoint, gate = Endpoint(dead(error)), Gate("m at here", "KEY")
    with pytest.raises(EndpointError, match="did not answer"):
        endpoint.ask(gate, "a")
    assert len(endpoint.sent) == IN_A_ROW


def test_confirming_asks_only_after_a_failure_and_tells_the_dead_from_the_living() -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    gate.confirm()
    assert endpoint.sent == []
    endpoint.fails = lambda text: SERVER_ERRORS[0] if text == "a" else None
    with pytest.raises(LMError):
        endpoint.ask(gate, "a")
    for _ in range(3):
        gate.confirm()
    assert endpoint.sent == ["a", "known"]
    endpoint.fails = dead(SERVER_ERRORS[0])
    with pytest.raises(LMError):
        endpoint.ask(gate, "a")
    with pytest.raises(EndpointError, match="no longer answers"):
        gate.confirm()


@pytest.mark.parametrize("seed", range(10))
def test_thirty_percent_failures_over_five_thousand_calls_are_no_death(seed: int) -> None:
    generator = random.Random(seed)
    endpoint = Endpoint(lambda text: SERVER_ERRORS[0] if generator.random() < 0.3 else None)
    gate, failures = Gate("m at here", "KEY"), 0
    for number in range(5000):
        try:
            endpoint.ask(gate, str(number))
        except exceptions.LMServerError:
            failures += 1
        if number % 8 == 7:
            gate.confirm()
    assert 1350 < failures < 1650
    assert len(endpoint.sent) < 5600


def test_thirty_percent_connections_lost_are_no_death() -> None:
    generator = random.Random(0)
    endpoint = Endpoint(lambda text: SILENCES[0] if generator.random() < 0.3 else None)
    gate = None
    while gate is None:  # a first call is not tried again: nothing is known of the address yet
        try:
            gate = opened(endpoint)
        except EndpointError:
            continue
    failures = 0
    for number in range(2000):
        try:
            endpoint.ask(gate, str(number))
        except exceptions.LMTransportError:
            failures += 1
    assert 500 < failures < 700


def test_while_the_endpoint_is_in_doubt_one_probe_is_sent_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.gate, "PAUSE_S", 0.005)
    endpoint = Endpoint()
    gate = opened(endpoint)
    under_way, most = [0], [0]
    lock = threading.Lock()

    def lost(text: str) -> LMError:
        probe = int(text == "known")
        with lock:
            under_way[0] += probe
            most[0] = max(most[0], under_way[0])
        time.sleep(0.005)
        with lock:
            under_way[0] -= probe
        return SILENCES[0]

    endpoint.fails = lost

    def ask(number: int) -> str:
        with pytest.raises(EndpointError) as caught:
            endpoint.ask(gate, str(number))
        return str(caught.value)

    with ThreadPoolExecutor(8) as pool:
        [message] = set(pool.map(ask, range(100)))
    assert message == gate.refusal
    assert most[0] == 1
    # Those that were under way when it died, and the probes.
    assert len(endpoint.sent) <= 8 + IN_A_ROW


def test_calls_that_come_while_the_endpoint_is_in_doubt_wait() -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    probing, settled, earlier = threading.Event(), threading.Event(), threading.Event()

    def fails(text: str) -> LMError | None:
        if text == "known":
            probing.set()
            settled.wait(timeout=10)
        if text == "earlier":
            earlier.wait(timeout=10)
        return SILENCES[0] if text == "a" else None

    endpoint.fails = fails
    with ThreadPoolExecutor(3) as pool:
        began_before = pool.submit(endpoint.ask, gate, "earlier")
        while not endpoint.sent:
            time.sleep(0.001)
        lost = pool.submit(endpoint.ask, gate, "a")
        probing.wait(timeout=10)
        earlier.set()
        assert began_before.result() == "EARLIER"
        waiting = pool.submit(endpoint.ask, gate, "b")
        time.sleep(0.05)
        assert endpoint.sent == ["earlier", "a", "known"]
        settled.set()
        assert waiting.result() == "B"
    assert isinstance(lost.exception(), exceptions.LMTransportError)


def test_many_connections_lost_at_once_do_not_replace_the_probes() -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    together = threading.Barrier(40)

    def lost(text: str) -> LMError | None:
        if text == "known":
            return SILENCES[0] if endpoint.sent.count("known") < DOUBTED_AFTER else None
        together.wait(timeout=10)
        return exceptions.LMTransportError("reset")

    endpoint.fails = lost

    def ask(number: int) -> None:
        with pytest.raises(exceptions.LMTransportError):
            endpoint.ask(gate, str(number))

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(ask, range(40)))
    assert gate.refusal is None
    assert DOUBTED_AFTER <= endpoint.sent.count("known") <= DOUBTED_AFTER + 40


@pytest.mark.parametrize("error", [SILENCES[0], SERVER_ERRORS[0]])
def test_an_answer_to_a_call_that_began_earlier_settles_nothing(error: LMError) -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    slow = threading.Event()

    def fails(text: str) -> LMError | None:
        if text == "slow" and not slow.is_set():
            slow.wait(timeout=10)
            return None
        return error

    endpoint.fails = fails
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(endpoint.ask, gate, "slow")
        while not endpoint.sent:
            time.sleep(0.001)
        with pytest.raises((EndpointError, exceptions.LMServerError)):
            endpoint.ask(gate, "a")
        slow.set()
        assert answered.result() == "SLOW"
    with pytest.raises(EndpointError):
        gate.confirm()


def test_where_waiting_takes_long_fewer_probes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.gate, "PATIENCE_S", 0.0)
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = dead(SILENCES[1])
    with pytest.raises(EndpointError, match="no longer answers"):
        endpoint.ask(gate, "a")
    assert endpoint.sent == ["a", "known"]


def test_a_budget_that_ends_while_probing_ends_the_call() -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = dead(SILENCES[0])

    def refuse(text: str) -> NoReturn:
        raise BudgetExhaustedError("used up")

    def first_silence_then_refused(text: str) -> LMError:
        endpoint.fails = refuse
        return SILENCES[0]

    endpoint.fails = first_silence_then_refused
    with pytest.raises(BudgetExhaustedError):
        endpoint.ask(gate, "a")
    endpoint.fails = lambda text: None
    assert endpoint.ask(gate, "b") == "B"


def test_what_a_probe_is_told_holds_no_secret() -> None:
    endpoint = Endpoint()
    gate = opened(endpoint)
    endpoint.fails = dead(exceptions.LMTransportError("cannot reach https://s3cret@here"))
    with pytest.raises(EndpointError) as caught:
        endpoint.ask(gate, "a")
    assert "https://***@here" in str(caught.value)
    assert caught.value.__context__ is None
