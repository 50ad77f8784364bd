"""What pydantic finds wrong with a person's settings, said in our own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from programs.errors import Problem


def problems_of(error: ValidationError, model: type[BaseModel], place: Callable[..., str]) -> list[Problem]:
    """One problem for each place that something is wrong at.

    Args:
        error: What validating `model` raised.
        model: The whole of the settings.
        place: Says where the keys handed to it stand, such as `study.yaml:7: space.top_k`.
    """
    problems: dict[str, Problem] = {}
    for detail in error.errors():
        # Parts in brackets name the branch of a union and no key of the file.
        keys = [key for key in detail["loc"] if not str(key).startswith("[")]
        where = place(*keys)
        problems.setdefault(where, _problem(where, detail, keys, model))
    return list(problems.values())


def _problem(place: str, detail: Any, keys: Sequence[int | str], model: type[BaseModel]) -> Problem:
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, keys[:-1])
        return Problem(place, "unknown setting", f"known here: {', '.join(known)}" if known else "remove it")
    if detail["type"] == "missing":
        return Problem(place, "missing", "it has no default")
    if detail["type"] == "value_error":
        return Problem(place, message)
    if detail["type"] == "model_type":
        message = "must be a mapping of settings"
    return Problem(place, f"{message[0].lower()}{message[1:]}, got {detail['input']!r:.80}")


def _known_keys(model: type[BaseModel], keys: Sequence[int | str]) -> list[str]:
    """The settings that a section may hold."""
    for key in keys:
        field = model.model_fields.get(str(key))
        parts = _parts(field.annotation) if field is not None else ()
        models = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and, for a union or an annotated one, what it is made of."""
    yield annotation
    for part in get_args(annotation) if get_origin(annotation) is not list else ():
        yield from _parts(part)
