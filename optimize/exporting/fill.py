"""This export's prompts for any client of an OpenAI-style server.

Needs nothing but Python 3.10 or newer and the files beside it.

    from fill import ask, read, request

    # With the openai package:
    body = request(context=["First passage.", "Second passage."], question="When was it built?")
    reply = client.chat.completions.create(model="...", **body)
    print(read(reply.choices[0].message.content))
    # A prompt for bare completions goes to client.completions.create(...), and its text is reply.choices[0].text.

    # With nothing at all:
    print(ask("http://127.0.0.1:8080/v1", "model", context=["A passage."], question="When was it built?"))

A program with several predictors names one: request("generate", context=[...], question="...").

Run as a program, it asks a server what the manifest's worked examples ask, and says whether the answers are the same:

    python fill.py ADDRESS MODEL

The address is the server's up to /v1, such as http://127.0.0.1:8080/v1, the model its name there. The server's key,
where it wants one, stands in the environment variable OPENAI_API_KEY.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def request(predictor: str | None = None, /, *, folder: str | Path = HERE, **inputs: Any) -> dict[str, Any]:
    """The body of a request, all but the model's name: what the study sent for these inputs, character for character.

    Args:
        predictor: Which one; it may be left out where there is only one.
        folder: The export folder.
        **inputs: Every input of the predictor: text, or a list of texts such as passages, the best first.

    Returns:
        `messages` or `prompt`, the settings, and under `extra_body` what only some servers know: the openai package
        takes it under that name, and a plain HTTP body takes its content.

    Raises:
        ValueError: The predictor or its inputs are others.
    """
    entry = entry_of(predictor, folder)
    if set(inputs) != set(entry["inputs"]):
        raise ValueError(f"{entry['predictor']} needs exactly {entry['inputs']}, got {sorted(inputs)}")
    texts = {name: shown(value, entry["format"]) for name, value in inputs.items()}
    written = Path(folder, entry["file"]).read_bytes().decode("utf-8")
    if entry["stop"] is not None:
        return {"prompt": fill([written], texts)[0], **entry["settings"]}
    content = json.loads(written)
    messages = next(one["messages"] for one in content if one["predictor"] == entry["predictor"])
    filled = fill([message["content"] for message in messages], texts)
    messages = [{**message, "content": text} for message, text in zip(messages, filled, strict=True)]
    return {"messages": messages, **entry["settings"]}


def read(text: str | None, predictor: str | None = None, /, *, folder: str | Path = HERE) -> dict[str, str]:
    """The outputs in what the model wrote.

    Args:
        text: The reply; None counts as empty.
        predictor: Which one wrote it; it may be left out where there is only one.
        folder: The export folder.

    Raises:
        ValueError: An output is missing, as where the model did not keep to the format. JSON with faults is one such
            case, though DSPy would mend it.
    """
    entry = entry_of(predictor, folder)
    found = _READERS[entry["format"]](text or "", entry["outputs"])
    missing = [name for name in entry["outputs"] if name not in found]
    if missing:
        raise ValueError(f"{entry['predictor']}: the reply has no {missing[0]!r}; it begins with {(text or '')[:80]!r}")
    return {name: found[name] for name in entry["outputs"]}


def ask(
    address: str,
    model: str,
    predictor: str | None = None,
    /,
    *,
    key: str | None = None,
    folder: str | Path = HERE,
    timeout_s: float = 120.0,
    **inputs: Any,
) -> dict[str, str]:
    """Send one request and read the outputs.

    Args:
        address: The server's address up to `/v1`.
        model: The model's name there.
        predictor: Which one; it may be left out where there is only one.
        key: The server's key.
        folder: The export folder.
        timeout_s: Seconds to wait.
        **inputs: Every input of the predictor.

    Raises:
        ValueError: The inputs are others, or the reply cannot be read.
        OSError: The server refuses the request, does not answer, or does not speak OpenAI's protocol.
    """
    body = request(predictor, folder=folder, **inputs)
    body.update(body.pop("extra_body", {}))
    place = "completions" if "prompt" in body else "chat/completions"
    reply = _post(f"{address.rstrip('/')}/{place}", {"model": model, **body}, key, timeout_s)
    try:
        choice = reply["choices"][0]
        text = choice["text"] if "prompt" in body else choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise OSError(f"the server's reply to /{place} is not one of OpenAI's protocol") from None
    return read(text, predictor, folder=folder)


def _post(url: str, body: dict[str, Any], key: str | None, timeout_s: float) -> Any:
    """The JSON that comes back. Errors name the path only: an address may hold a password."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        sent = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.build_opener(_Stay).open(sent, timeout=timeout_s) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(2000).decode("utf-8", "replace").split())
        said = said.replace(key, "***") if key else said
        mend = f" ({_MENDS[error.code]})" if error.code in _MENDS else ""
        what = f"the server refused the request with {error.code}{mend}: {said[:300]}"
    except (OSError, http.client.HTTPException) as error:
        what = f"the server does not answer ({getattr(error, 'reason', None) or type(error).__name__})"
    except ValueError as error:
        unread = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
        what = "the server's reply is not JSON" if unread else "the address is not a URL"
    raise OSError(what)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes nobody's word for another address: the key would go there, too."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """None: the redirection is an error."""


_MENDS = {
    **dict.fromkeys((301, 302, 303, 307, 308), "it leads to another address: name that one"),
    401: "is the key right?",
    403: "may the key do this?",
    404: "does the address go up to /v1, and has the server this model?",
    405: "does the address go up to /v1?",
}
"""Status -> what to look at."""


def check(address: str, model: str, *, key: str | None = None, folder: str | Path = HERE) -> list[tuple[str, str, str]]:
    """Send every call of the worked examples again.

    Args:
        address: The server's address up to `/v1`.
        model: The model's name there.
        key: The server's key.
        folder: The export folder.

    Returns:
        What differs: the question, and the outputs as recorded and as they came back, as JSON, or why they cannot be
        read.

    Raises:
        OSError: The server does not answer.
    """
    differing = []
    for example in _manifest(folder)["examples"]:
        for call in example["calls"]:
            try:
                found: Any = ask(address, model, call["predictor"], key=key, folder=folder, **call["inputs"])
            except ValueError as error:
                found = str(error)
            if found != call["outputs"]:
                told = [json.dumps(outputs, ensure_ascii=False) for outputs in (call["outputs"], found)]
                differing.append((example["question"], *told))
    return differing


def fill(contents: list[str], texts: dict[str, str]) -> list[str]:
    """The contents with their placeholders `{{name}}` filled, all at once.

    The last occurrence of each is the placeholder: an earlier one stands in a demo or in the instructions, which may
    quote anything. Where the text is empty, the space before it goes, too.
    """
    places = []
    for name, text in texts.items():
        mark = "{{" + name + "}}"
        number = max((n for n, content in enumerate(contents) if mark in content), default=None)
        if number is None:
            raise ValueError(f"the prompt has no {mark}; take the file as it was exported")
        start = contents[number].rindex(mark)
        end = start + len(mark)
        places.append((number, start - (not text and contents[number][start - 1 : start] == " "), end, text))
    filled = list(contents)
    for number, start, end, text in sorted(places, reverse=True):
        filled[number] = filled[number][:start] + text + filled[number][end:]
    return filled


def shown(value: Any, prompt_format: str) -> str:
    """An input as the prompt shows it."""
    if prompt_format == "compact":
        return _compact(value).rstrip()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _compact(value: Any) -> str:
    """Items of a list on lines of their own, whitespace inside a text as one space."""
    if isinstance(value, (list, tuple)):
        return "\n".join(map(_compact, value))
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())


def entry_of(predictor: str | None, folder: str | Path = HERE) -> dict[str, Any]:
    """What the manifest says of a predictor's prompt: file, format, inputs, outputs and settings.

    Raises:
        ValueError: There is no such predictor, or several and none is named.
    """
    prompts = _manifest(folder)["prompts"]
    found = [entry for entry in prompts if predictor in (None, entry["predictor"])]
    if len(found) != 1:
        raise ValueError(f"name one of {[entry['predictor'] for entry in prompts]}, got {predictor!r}")
    return dict(found[0])


def _manifest(folder: str | Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(Path(folder, "manifest.json").read_text(encoding="utf-8"))
    return manifest


def _read_compact(text: str, names: list[str]) -> dict[str, str]:
    """What stands behind each label; what comes before the first belongs to the first. The last is a single line."""
    labels = {name.replace("_", " ").capitalize().lower(): name for name in names}
    pattern = rf"^[ \t*_#>-]*({'|'.join(map(re.escape, labels))})[ \t*_]*:[ \t*_]*"
    marks = list(re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE))
    found: dict[str, str] = {}
    for number, mark in enumerate(marks):
        end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
        found.setdefault(labels[mark[1].lower()], text[mark.end() : end])
    found.setdefault(names[0], text[: marks[0].start()] if marks else text)
    if names[-1] in found:
        found[names[-1]] = next((line for line in found[names[-1]].splitlines() if line.strip()), "")
    return {name: " ".join(value.split()) for name, value in found.items()}


def _read_chat(text: str, names: list[str]) -> dict[str, str]:
    """The lines under each `[[ ## name ## ]]`."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        mark = re.match(r"\[\[ ## (\w+) ## \]\]", line.strip())
        if mark:
            lines = []
            found.setdefault(mark[1], lines)
            line = line[mark.end() :].strip()
        lines.append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items() if name in names}


def _read_json(text: str, names: list[str]) -> dict[str, str]:
    start, end = text.find("{"), text.rfind("}") + 1
    found = json.loads(text[start:end]) if start >= 0 else {}
    return {name: found[name] if isinstance(found[name], str) else str(found[name]) for name in names if name in found}


def _read_xml(text: str, names: list[str]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    try:
        root = xml.etree.ElementTree.fromstring(f"<reply>{text}</reply>")
    except xml.etree.ElementTree.ParseError as error:
        raise ValueError(f"the reply is not XML: {error}") from None
    for child in root:
        inside = "".join(xml.etree.ElementTree.tostring(part, encoding="unicode") for part in child)
        found.setdefault(child.tag, []).append((child.text or "") + inside if inside else (child.text or "").strip())
    return {name: found[name][0] if len(found[name]) == 1 else str(found[name]) for name in names if name in found}


_READERS = {"compact": _read_compact, "chat": _read_chat, "json": _read_json, "xml": _read_xml}
"""Prompt format -> how its replies are read."""


def main() -> int:
    """The command: 0 where all answers are the recorded ones, 1 where not, 2 where it was called in another way."""
    if len(sys.argv) != 3:
        print("usage: python fill.py ADDRESS MODEL, such as: python fill.py http://127.0.0.1:8080/v1 my-model")
        return 2
    examples = _manifest(HERE)["examples"]
    if not examples:
        print(f"manifest.json has no worked examples to ask: {_manifest(HERE).get('examples_missing')}")
        return 1
    try:
        differing = check(sys.argv[1], sys.argv[2], key=os.environ.get("OPENAI_API_KEY"))
    except OSError as error:
        print(f"error: {error}")
        return 1
    for question, recorded, found in differing:
        print(f"{question}\n  recorded  {recorded}\n  now       {found}")
    print(f"{len(examples) - len({question for question, *_ in differing})} of {len(examples)} as recorded")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
