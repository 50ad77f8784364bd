"""A YAML file of settings, read with the line of every key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from programs.errors import RagwrightError


def read_yaml(path: Path) -> tuple[Mapping[str, Any], yaml.MappingNode]:
    """The settings of a file, and the same as YAML nodes, which know their lines.

    Raises:
        RagwrightError: The file is missing, is not YAML or holds no mapping.
    """
    text = _read(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RagwrightError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}.") from None
    except ValueError as error:
        # What looks like a date and is none.
        raise RagwrightError(f"{path}: not YAML: {error}; put the value into quotes.") from None
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise RagwrightError(
            f"{path}: a study file is a mapping of settings; `ragwright init` writes one to start from."
        )
    return content, node


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RagwrightError(f"{path}: no such study file; `ragwright init` writes one to start from.") from None
    except UnicodeDecodeError as error:
        raise RagwrightError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8.") from None
    except IsADirectoryError:
        raise RagwrightError(f"{path}: a folder, not a study file.") from None


def line_of(node: yaml.Node, keys: Sequence[int | str]) -> int:
    """Line, from 1, of the deepest part of `keys` that the file has."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def repeated_keys(node: yaml.Node, above: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """Line and path of every key that its mapping has twice; YAML itself silently takes the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        path = (*above, str(key.value))
        if path[-1] in seen:
            yield key.start_mark.line + 1, ".".join(path)
        seen.add(path[-1])
        yield from repeated_keys(value, path)
