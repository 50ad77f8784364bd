"""DSPy's judges, `SemanticF1` and `CompleteAndGrounded`, which name shares.

Their predictors are called one by one, since the modules keep nothing but the score, clamp what is no share, and turn
NaN into 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from optimize.data.example import Example
from optimize.metrics.abstention import ruled
from optimize.metrics.judging import Asked
from optimize.metrics.metric import Grade, Score, compared
from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy


@contextmanager
def _judging(judge: dspy.LM, name: str) -> Iterator[None]:
    """The DSPy context of a judge; what it says that cannot be read becomes one line."""
    import dspy
    from dspy.utils.exceptions import AdapterParseError

    from programs.prompt_format import FORMATS

    try:
        # A trace would make the judge's words look like the program's to an optimizer that collects demos.
        with dspy.context(lm=judge, adapter=FORMATS["chat"](), trace=None):
            yield
    except AdapterParseError as error:
        said = str(error.lm_response).strip()[:200]
        raise RagwrightError(f"the judge's reply about {name} cannot be read; it says {said!r}.") from None


def _share(said: dspy.Prediction, field_name: str, name: str) -> float:
    """A share that a judge named.

    Raises:
        RagwrightError: It is no share.
    """
    value = said.get(field_name)
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise RagwrightError(f"the judge of {name} says {field_name} {value!r}, which is no share in [0, 1].")
    return float(value)


def semantic_f1(judge: dspy.LM) -> Grade:
    """How much of the gold answer the answer covers, and how much of the answer the gold one backs, as F1."""
    from dspy.evaluate import SemanticF1
    from dspy.evaluate.auto_evaluation import f1_score

    predictor = SemanticF1().module

    def grade(example: Example, prediction: dspy.Prediction) -> Score:
        asked = Asked(example, prediction)
        rule = ruled(example, asked.answer, declined=0.0, invented=0.0)
        if rule is not None:
            return rule
        with _judging(judge, "semantic_f1"):
            said = predictor(question=asked.question, ground_truth=asked.gold, system_response=asked.answer)
        precision, recall = (_share(said, name, "semantic_f1") for name in ("precision", "recall"))
        words = f"the judge says: recall {recall:.2f}, precision {precision:.2f}; {said.get('reasoning') or ''}"
        return Score(f1_score(precision, recall), f"{words.strip()} {compared(example.answers, asked.answer)}")

    return grade


def complete_and_grounded(judge: dspy.LM) -> Grade:
    """How much of the gold answer the answer covers, and how much of it the passages back, as F1: two calls."""
    from dspy.evaluate import CompleteAndGrounded
    from dspy.evaluate.auto_evaluation import f1_score

    module = CompleteAndGrounded()

    def grade(example: Example, prediction: dspy.Prediction) -> Score:
        asked = Asked(example, prediction)
        rule = ruled(example, asked.answer, declined=0.0, invented=0.0)
        if rule is not None:
            return rule
        told = {"question": asked.question, "system_response": asked.answer}
        context = asked.context
        with _judging(judge, "complete_and_grounded"):
            complete = module.completeness_module(**told, ground_truth=asked.gold)
            grounded = module.groundedness_module(**told, retrieved_context=context)
        completeness = _share(complete, "completeness", "complete_and_grounded")
        groundedness = _share(grounded, "groundedness", "complete_and_grounded")
        words = [f"the judge says: completeness {completeness:.2f}, groundedness {groundedness:.2f}"]
        words += [str(said.get("discussion") or "") for said in (complete, grounded)]
        feedback = "; ".join(filter(None, [*words, compared(example.answers, asked.answer)]))
        return Score(f1_score(groundedness, completeness), feedback)

    return grade
