"""The code of the MLflow model: an export that answers. MLflow copies this file into the model and runs it there."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd  # type: ignore[import-untyped]
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from programs.environment import set_environment_defaults
from programs.errors import EndpointError


class Answers(PythonModel):
    """Rows with a `question` in, rows with an `answer` and its `sources` out.

    The LM's key comes from the environment, as the export's `pipeline.yaml` names it. The index is built at the first
    start, in the folder that RAGWRIGHT_RUNS names, or `~/.cache/ragwright`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Open the export that lies in the model.

        Raises:
            RagwrightError: The corpus or the index is not the export's, or the LM has no key.
        """
        set_environment_defaults()
        from optimize.exporting.exported import load_export

        runs = Path(os.environ.get("RAGWRIGHT_RUNS") or Path.home() / ".cache" / "ragwright")
        self._program = load_export(Path(context.artifacts["export"]), runs)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer every row, several at a time, in order.

        Raises:
            RagwrightError: The LM does not answer; the next request asks it anew.
        """
        program = self._program
        with ThreadPoolExecutor(program.spec.threads) as pool:
            try:
                answered = list(pool.map(program.ask, model_input["question"]))
            except EndpointError:
                # Once found dead, it would be refused for as long as this server runs.
                self._program = program.reopened()
                raise
        return [
            {"answer": answer, "sources": [{**asdict(passage.span), "text": passage.text} for passage in passages]}
            for answer, passages in answered
        ]


mlflow.models.set_model(Answers())
