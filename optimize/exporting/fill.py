"""This export's prompts for any client of an OpenAI-style server. Needs nothing but Python and the files beside it.

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

    python fill.py http://127.0.0.1:8080/v1 model      # with the key in OPENAI_API_KEY, where one is needed
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def request(predictor: str | None = None, /, *, folder: Path = HERE, **inputs: Any) -> dict[str, Any]:
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
    if entry["stop"] is not None:
        prompt = (folder / entry["file"]).read_bytes().decode("utf-8")
        return {"prompt": fill([prompt], texts)[0], **entry["settings"]}
    content = json.loads((folder / entry["file"]).read_text(encoding="utf-8"))
    messages = next(one["messages"] for one in content if one["predictor"] == entry["predictor"])
    filled = fill([message["content"] for message in messages], texts)
    messages = [{**message, "content": text} for message, text in zip(messages, filled, strict=True)]
    return {"messages": messages, **entry["settings"]}


def read(text: str | None, predictor: str | None = None, /, *, folder: Path = HERE) -> dict[str, str]:
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
        raise ValueError(f"{entry['predictor']}: the reply has no {missing[0]!r}")
    return {name: found[name] for name in entry["outputs"]}


def ask(
    address: str,
    model: str,
    predictor: str | None = None,
    /,
    *,
    key: str | None = None,
    folder: Path = HERE,
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
    """
    body = request(predictor, folder=folder, **inputs)
    body.update(body.pop("extra_body", {}))
    place = "completions" if "prompt" in body else "chat/completions"
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = json.dumps({"model": model, **body}).encode()
    sent = urllib.request.Request(f"{address.rstrip('/')}/{place}", data, headers)
    with urllib.request.urlopen(sent, timeout=timeout_s) as reply:
        choice = json.loads(reply.read())["choices"][0]
    text = choice["text"] if "prompt" in body else choice["message"]["content"]
    return read(text, predictor, folder=folder)


def check(address: str, model: str, *, key: str | None = None, folder: Path = HERE) -> list[tuple[str, str, str]]:
    """Send every call of the worked examples again.

    Args:
        address: The server's address up to `/v1`.
        model: The model's name there.
        key: The server's key.
        folder: The export folder.

    Returns:
        What differs: the question, and the outputs as recorded and as they came back, as JSON.
    """
    differing = []
    for example in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["examples"]:
        for call in example["calls"]:
            found = ask(address, model, call["predictor"], key=key, folder=folder, **call["inputs"])
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
        number = max(n for n, content in enumerate(contents) if mark in content)
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


def entry_of(predictor: str | None, folder: Path = HERE) -> dict[str, Any]:
    """What the manifest says of a predictor's prompt: file, format, inputs, outputs and settings.

    Raises:
        ValueError: There is no such predictor, or several and none is named.
    """
    prompts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["prompts"]
    found = [entry for entry in prompts if predictor in (None, entry["predictor"])]
    if len(found) != 1:
        raise ValueError(f"name one of {[entry['predictor'] for entry in prompts]}, got {predictor!r}")
    return dict(found[0])


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
    """The command: 0 where all answers are the recorded ones."""
    address, model = sys.argv[1:]
    examples = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))["examples"]
    differing = check(address, model, key=os.environ.get("OPENAI_API_KEY"))
    for question, recorded, found in differing:
        print(f"{question}\n  recorded  {recorded}\n  now       {found}")
    print(f"{len(examples) - len({question for question, *_ in differing})} of {len(examples)} as recorded")
    return int(bool(differing) or not examples)


if __name__ == "__main__":
    sys.exit(main())
