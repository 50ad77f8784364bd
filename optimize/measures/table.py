"""Measures of retrieval. Evidence is spans of characters, so they compare chunkings: chunk ids do not enter them.

A question without evidence is not scored by a measure that needs it, which is no zero: NaN in arrays, left out of
dictionaries, counted in means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimize.data.example import Example
from optimize.inference.statistics import mean_and_stderr
from optimize.measures.evidence import Gold
from optimize.measures.measure import Measure as Measure
from optimize.measures.ranking import NDCG, AveragePrecision, Recall, ReciprocalRank
from optimize.measures.spans import GoldInContext, IoU, PrecisionOmega, SpanPrecision, SpanRecall
from programs.errors import RagwrightError
from programs.types import Passage, Span


class ContextTokens(Measure):
    """Tokens of all passages handed over, by the counting tokenizer; text that two passages share counts twice.

    Formula: sum over passages of tokens. Range: from 0. Lower is better: it is what the LM has to read.
    """

    base = "context_tokens"
    higher_is_better = False
    needs_evidence = False
    from_spans = False


class LatencyMs(Measure):
    """Milliseconds that retrieval took for the question, as measured by the caller.

    Formula: wall-clock time of embedding the question, search and reranking; of a batch, its time over its questions.
    Range: from 0. Lower is better.
    """

    base = "latency_ms"
    higher_is_better = False
    needs_evidence = False
    from_spans = False


MEASURES: dict[str, type[Measure]] = {
    kind.base: kind
    for kind in (
        SpanRecall,
        SpanPrecision,
        IoU,
        PrecisionOmega,
        GoldInContext,
        Recall,
        NDCG,
        ReciprocalRank,
        AveragePrecision,
        ContextTokens,
        LatencyMs,
    )
}
"""Name without the cut -> kind."""

_NAMES = {"none": ("{0}",), "optional": ("{0}", "{0}@k"), "required": ("{0}@k",)}
MEASURE_NAMES = tuple(name.format(base) for base, kind in MEASURES.items() for name in _NAMES[kind.cut])
"""What `parse_measure` takes; k stands for a number from 1."""


def parse_measure(name: str) -> Measure:
    """Read a measure's name, such as `span_recall` or `nDCG@10`.

    Raises:
        RagwrightError: There is no such measure.
    """
    match = re.fullmatch(r"(\w+)(@[1-9][0-9]{0,8})?", name)
    if match is None or match[1] + ("@k" if match[2] else "") not in MEASURE_NAMES:
        raise RagwrightError(
            f"unknown measure {name!r}; choices: {', '.join(MEASURE_NAMES)}, with a number from 1 for k"
        )
    return MEASURES[match[1]](int(match[2][1:]) if match[2] else None)


ROW_MEASURES = tuple(
    map(parse_measure, ("span_recall", "span_precision", "iou", "gold_in_context", "R@1", "nDCG", "RR", "AP"))
)
"""What is said of one question's passages. Those without a cut are about all that was handed over: a cut that is deeper
would promise ranks that nobody asked for, and one that follows `top_k` would give each configuration its own names."""


def measure_retrieval(example: Example, passages: Sequence[Passage]) -> dict[str, float]:
    """The row measures of one question's passages, best first; empty where the question has no evidence."""
    if not example.evidence:
        return {}
    held = Gold(example.evidence).held_by([passage.span for passage in passages])
    return {str(measure): measure(held) for measure in ROW_MEASURES}


def gold_in_context(example: Example, spans: Sequence[Span]) -> bool:
    """Whether the spans cover every fact of a question with evidence from end to end."""
    return GoldInContext()(Gold(example.evidence).held_by(spans)) == 1.0


class Scorer:
    """Scores many configurations on the same questions: the evidence is prepared once."""

    def __init__(self, examples: Sequence[Example], measures: Sequence[Measure]) -> None:
        """Prepare the evidence; the order of both is that of the arrays."""
        self._measures = tuple(measures)
        self._gold = [Gold(example.evidence) if example.evidence else None for example in examples]

    def score(
        self, spans: Sequence[Sequence[Span]], given: Mapping[str, ArrayLike] | None = None
    ) -> NDArray[np.float64]:
        """Score one configuration.

        Args:
            spans: For each question the spans handed over, best first.
            given: Name -> one value a question, for the measures that do not follow from spans: `precision_omega` (see
                the function in `optimize.measures.spans`), `context_tokens`, `latency_ms`.

        Returns:
            Questions x measures; NaN where a question is not scored.
        """
        assert len(spans) == len(self._gold), "one list of spans a question"
        values = np.full((len(self._gold), len(self._measures)), math.nan)
        scored = np.array([gold is not None for gold in self._gold], dtype=bool)
        for column, measure in enumerate(self._measures):
            if not measure.from_spans:
                assert given is not None and str(measure) in given, f"{measure} must be given"
                rows = scored if measure.needs_evidence else slice(None)
                values[rows, column] = np.asarray(given[str(measure)], dtype=float)[rows]
        columns = np.array([column for column, measure in enumerate(self._measures) if measure.from_spans], dtype=int)
        measures = [measure for measure in self._measures if measure.from_spans]
        held = [gold.held_by(found) for gold, found in zip(self._gold, spans, strict=True) if gold is not None]
        if held and measures:
            values[np.ix_(scored, columns)] = [[measure(each) for measure in measures] for each in held]
        return values


def measure_many(
    measures: Sequence[Measure],
    examples: Sequence[Example],
    spans: Sequence[Sequence[Span]],
    given: Mapping[str, ArrayLike] | None = None,
) -> NDArray[np.float64]:
    """Score one configuration: `Scorer(examples, measures).score(spans, given)`."""
    return Scorer(examples, measures).score(spans, given)


@dataclass(frozen=True, slots=True)
class MeasureMean:
    """A measure over several questions.

    Attributes:
        value: Mean over the scored questions; NaN where none was scored.
        stderr: Its standard error; NaN where fewer than two were scored.
        n: How many were scored.
        unscored: How many were not.
    """

    value: float
    stderr: float
    n: int
    unscored: int


def mean_of(values: Iterable[float | None], clusters: Sequence[Hashable] | None = None) -> MeasureMean:
    """Mean of one measure.

    Args:
        values: One a question; NaN or None where it was not scored.
        clusters: The group of each question, for the cluster-robust error.
    """
    known = [math.nan if value is None else float(value) for value in values]
    scored = [place for place, value in enumerate(known) if not math.isnan(value)]
    groups = [clusters[place] for place in scored] if clusters is not None else None
    value, stderr = mean_and_stderr([known[place] for place in scored], groups)
    return MeasureMean(value, stderr, len(scored), len(known) - len(scored))
