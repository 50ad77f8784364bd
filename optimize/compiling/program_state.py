"""Reading a saved DSPy program from a file that may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from programs.errors import RagwrightError

if TYPE_CHECKING:
    import dspy

_PREDICTOR_KEYS = {"traces", "train", "demos", "signature", "lm"}
_DEMO_EXTRAS = {"augmented"}


def load_program_state(program: dspy.Module, file: Path) -> None:
    """Put saved prompts and demos into a program, after every part of the file was found harmless.

    DSPy itself sets whatever a state file holds, among it settings that send the key to another address. Only what an
    export writes is let through: instructions, field texts and demos of plain text.

    Args:
        program: Of the kind that was saved; changed in place.
        file: A `program.json`.

    Raises:
        RagwrightError: The file is missing, is no JSON, or holds anything else.
    """
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RagwrightError(f"{file}: missing; export the study again.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RagwrightError(f"{file}: not JSON ({error}); export the study again.") from None
    predictors = dict(program.named_predictors())
    _require(isinstance(state, dict), file, "", "must be an object")
    found = set(state) - {"metadata"}
    _require(found == set(predictors), file, "", f"has predictors {sorted(found)}, the program {sorted(predictors)}")
    for name, predictor in predictors.items():
        _check_predictor(file, name, state[name], predictor.signature)
    program.load_state({name: state[name] for name in predictors})


def _check_predictor(file: Path, name: str, state: Any, signature: Any) -> None:
    _require(isinstance(state, dict), file, name, "must be an object")
    unknown = sorted(set(state) - _PREDICTOR_KEYS)
    _require(not unknown, file, name, f"unknown key {unknown[0] if unknown else ''!r}")
    _require(set(state) == _PREDICTOR_KEYS, file, name, f"needs the keys {', '.join(sorted(_PREDICTOR_KEYS))}")
    _require(state["lm"] is None, file, f"{name}.lm", "must be null")
    _require(state["traces"] == [] and state["train"] == [], file, name, "traces and train must be empty")
    _check_signature(file, f"{name}.signature", state["signature"], len(signature.fields))
    _require(isinstance(state["demos"], list), file, f"{name}.demos", "must be a list")
    for number, demo in enumerate(state["demos"]):
        _check_demo(file, f"{name}.demos[{number}]", demo, set(signature.fields))


def _check_signature(file: Path, place: str, state: Any, count: int) -> None:
    _require(isinstance(state, dict) and set(state) == {"instructions", "fields"}, file, place, "has the wrong keys")
    _require(isinstance(state["instructions"], str), file, place, "instructions must be text")
    fields = state["fields"]
    _require(isinstance(fields, list) and len(fields) == count, file, place, f"must have {count} fields")
    texts = all(
        isinstance(field, dict)
        and set(field) == {"prefix", "description"}
        and all(isinstance(text, str) for text in field.values())
        for field in fields
    )
    _require(texts, file, place, "fields must have a prefix and a description of text")


def _check_demo(file: Path, place: str, demo: Any, fields: set[str]) -> None:
    _require(isinstance(demo, dict), file, place, "must be an object")
    unknown = sorted(set(demo) - fields - _DEMO_EXTRAS)
    _require(not unknown, file, place, f"unknown field {unknown[0] if unknown else ''!r}")
    plain = all(_is_plain(value) for value in demo.values())
    _require(plain, file, place, "values must be text or lists of text")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str | int | float)


def _require(holds: bool, file: Path, place: str, problem: str) -> None:
    if not holds:
        where = f"{file}: {place}" if place else str(file)
        raise RagwrightError(f"{where}: {problem}; this is not what an export writes, so it is not loaded.")
