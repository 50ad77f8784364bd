"""MLflow's built-in judges that say yes or no, asked through our own LM.

MLflow's `is_grounded` and its like send their prompt with a client of MLflow's: a model URI, retries of its own, no
cache, no hook. Their calls would pass by the one place that caches, counts, prices and stops calls
(`programs/metering.py`), so here the prompt is MLflow's, rendered by MLflow's function at run time, and the call is a
`dspy.LM`'s. Only reading the reply is left to do: it is the JSON that the prompt asks for. The scores are those of the
prompt in the installed MLflow; `optimize.metrics.table.metric_identity` so holds its version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from optimize.data.example import Example
from optimize.metrics.abstention import ruled
from optimize.metrics.judging import Asked, JudgedMetric
from optimize.metrics.metric import Grade, Need, Score, compared
from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy

_RESULT = re.compile(r'"result"\s*:\s*"\s*(yes|no)\b[^"]*"', re.IGNORECASE)
_OPENING = "Let's think step by step"


def mlflow_judge(
    name: str,
    needs: set[Need],
    prompt: str,
    told: Callable[[Asked], dict[str, str]],
    *,
    declined: float | None,
    invented: float | None,
) -> JudgedMetric:
    """One of MLflow's judges that say yes (1) or no (0).

    Args:
        name: What the metric is called.
        needs: What it works from, besides the judge.
        prompt: Module in `mlflow.genai.judges.prompts`.
        told: Arguments of that module's `get_prompt`.
        declined: What an answer that declines is worth without asking; see `optimize.metrics.abstention.ruled`.
        invented: What an answer is worth without asking where the documents hold none.
    """

    def grade_by(judge: dspy.LM) -> Grade:
        render = import_module(f"mlflow.genai.judges.prompts.{prompt}").get_prompt

        def grade(example: Example, prediction: dspy.Prediction) -> Score:
            asked = Asked(example, prediction)
            rule = ruled(example, asked.answer, declined=declined, invented=invented)
            if rule is not None:
                return rule
            right, why = read_rating(ask(judge, render(**told(asked))), name)
            said = f"the judge finds {'' if right else 'no '}{name}: {why}".removesuffix(": ")
            return Score(float(right), said if right else f"{said}; {compared(example.answers, asked.answer)}")

        return grade

    return JudgedMetric(name, frozenset({*needs, "judge"}), grade_by, 1, "mlflow")


def ask(judge: dspy.LM, prompt: str) -> str:
    """Send a judge a prompt of one message.

    Returns:
        Its reply; empty where it says nothing.
    """
    replies = judge(prompt)
    reply = replies[0] if replies else ""
    return str(reply.get("text") or "") if isinstance(reply, dict) else str(reply or "")


def read_rating(reply: str, name: str) -> tuple[bool, str]:
    """Whether a judge says yes, and why.

    The reply is the JSON object that MLflow's prompts ask for, perhaps with something around it or with quotation marks
    that break it, or the bare word.

    Raises:
        RagwrightError: It says neither yes nor no, or both.
    """
    said = _json_object(reply)
    result = said.get("result")
    ratings = {result} if isinstance(result, str) else set(_RESULT.findall(reply)) or {reply}
    ratings = {rating.strip(" \t\r\n.*`'\"").lower() for rating in ratings}
    if len(ratings) != 1 or not ratings <= {"yes", "no"}:
        raise RagwrightError(f"the judge rated {name} neither yes nor no; it says {reply.strip()[:200]!r}.")
    why = said.get("rationale")
    why = " ".join(why.split()) if isinstance(why, str) else ""
    return ratings == {"yes"}, why.removeprefix(_OPENING).lstrip(" .,:")


def _json_object(reply: str) -> dict[str, Any]:
    """The JSON object in a reply; empty where there is none that can be read."""
    try:
        value = json.loads(reply[reply.find("{") : reply.rfind("}") + 1], strict=False)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
