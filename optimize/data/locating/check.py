"""Ask a language model about places that are not sure."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy

from optimize.data.locating.locating import Finding, OnStep
from programs.errors import BudgetExhaustedError, EndpointError
from programs.lm import LMSpec, describe_endpoint, open_lm
from programs.metering import CallRecord
from programs.prompt_format import FORMATS
from programs.response_cache import ResponseCache


class Supports(dspy.Signature):
    """Decide whether the passage states that the answer is a right answer to the question."""

    passage: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.InputField()
    supported: bool = dspy.OutputField(desc="True or False")


@dataclass(frozen=True, slots=True)
class Calls:
    """What a language model was asked.

    Attributes:
        endpoint: Who was asked.
        made: Calls that were really sent, failed ones included.
        cached: Calls that were answered from the cache.
        failed: Calls without an answer that could be read.
        refused: Questions that were left because of the largest number of calls.
    """

    endpoint: str
    made: int = 0
    cached: int = 0
    failed: int = 0
    refused: int = 0

    def __str__(self) -> str:
        left = f", {self.refused} questions left for want of --max-calls" if self.refused else ""
        return f"{self.endpoint}: {self.made} calls made, {self.cached} from the cache, {self.failed} failed{left}"

    def as_json(self) -> dict[str, Any]:
        """The counts, JSON-serializable."""
        return {name: getattr(self, name) for name in self.__slots__}


class _Meter:
    """Counts calls from many threads and refuses those above a number."""

    def __init__(self, endpoint: str, allowed: int) -> None:
        self.calls = Calls(endpoint)
        self._left = allowed
        self._lock = threading.Lock()

    def admit(self) -> None:
        """Let a call through.

        Raises:
            BudgetExhaustedError: There were enough.
        """
        with self._lock:
            if self._left == 0:
                raise BudgetExhaustedError("--max-calls is reached.")
            self._left -= 1

    def count(self, record: CallRecord) -> None:
        """Count a call that was made or answered from the cache."""
        self.add("made" if record.paid else "cached")

    def add(self, name: str) -> None:
        """Count one more."""
        with self._lock:
            self.calls = replace(self.calls, **{name: getattr(self.calls, name) + 1})


def check_unsure(
    findings: Sequence[Finding], spec: LMSpec, max_calls: int, runs: Path, on_step: OnStep
) -> tuple[list[Finding], Calls]:
    """Ask about the proposals of each unsure finding, the best first, until one is supported.

    A failed call leaves its question unsure.

    Args:
        findings: Sure ones are not asked about; of the others the likeliest come first.
        spec: The language model.
        max_calls: Largest number of calls that are really made.
        runs: Its `cache/responses.sqlite` keeps the answers.
        on_step: Hears how far it is.

    Returns:
        The findings in their order, and what was asked.

    Raises:
        EndpointError: The language model refuses every call.
    """
    meter = _Meter(describe_endpoint(spec), max_calls)
    cache = ResponseCache(runs / "cache" / "responses.sqlite")
    lm = open_lm(spec, cache=cache, role="judge", admit=meter.admit, on_call=meter.count)
    adapter = FORMATS["compact" if spec.endpoint == "completion" else "chat"]()
    checked = list(findings)
    unsure = [at for at, finding in enumerate(findings) if finding.chosen is None and finding.proposals]
    unsure.sort(key=lambda at: -findings[at].proposals[0].confidence)
    with dspy.context(lm=lm, adapter=adapter), ThreadPoolExecutor(max_workers=spec.threads) as pool:
        futures = [pool.submit(copy_context().run, _check, findings[at], meter) for at in unsure]
        try:
            for done, (at, future) in enumerate(zip(unsure, futures, strict=True), start=1):
                checked[at] = future.result()
                on_step("asking", done, len(unsure))
        finally:
            for future in futures:
                future.cancel()
    return checked, meter.calls


def _check(finding: Finding, meter: _Meter) -> Finding:
    predict = dspy.Predict(Supports)
    answer = " or ".join(finding.example.known_answers)
    for number, proposal in enumerate(finding.proposals):
        try:
            said = predict(passage=proposal.passage, question=finding.example.question, answer=answer)
        except EndpointError:
            raise
        except BudgetExhaustedError:
            meter.add("refused")
            return replace(finding, why=f"{finding.why}; --max-calls was reached before the language model was asked")
        except Exception as problem:  # noqa: BLE001  # providers and adapters raise what they like
            meter.add("failed")
            said_wrong = f"{type(problem).__name__}: {problem}".splitlines()[0][:200]
            return replace(finding, why=f"{finding.why}; the call of the language model failed: {said_wrong}")
        if said.supported is True:
            return replace(finding, chosen=number, why="", checked=True)
    return replace(finding, why=f"{finding.why}; the language model finds it supported in none of them")
