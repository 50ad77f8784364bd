"""What libraries read from the environment when they are first imported, set before that."""

from __future__ import annotations

import os

DEFAULTS = {
    # DSPy and litellm otherwise fetch a price list at the first call, and wait for it where there is no network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # Nobody is told that the tool is used.
    "ANONYMIZED_TELEMETRY": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
    # Tokenizer threads and forked processes warn about each other.
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variable -> value. What a person has set stays as it is."""


def set_environment_defaults() -> None:
    """Set the variables of `DEFAULTS` that are not set. Call it before any of the libraries is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
