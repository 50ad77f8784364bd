"""A small made-up data set and a model that can read it: enough for whole studies in a second or two.

Each village has a page that names who does which work there. The reader answers when the page's sentence is in its
context, so a program's score follows from what it retrieves.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from optimize.data.dataset import write_dataset
from optimize.data.example import Example, Fact, Place
from optimize.data.splits import split_examples
from programs.corpus import load_corpus
from programs.types import Span

VILLAGES = (
    *("Arlow", "Benning", "Corvale", "Dunmere", "Eskholt", "Farrow", "Gildern", "Hexby"),
    *("Inverlae", "Jarrowick", "Kestle", "Lowmoor", "Marrick", "Northam", "Oakhurst", "Penlow"),
    *("Quarndon", "Rushmere", "Selwick", "Thornby", "Ulverne", "Vardale", "Wexcombe", "Yarrowby"),
)
TRADES = ("baker", "miller", "weaver", "smith", "carter", "cooper")
NAMES = ("Mira", "Tom", "Ada", "Joss", "Nell", "Ivo", "Wren", "Piet", "Lena", "Karl", "Una", "Odo")
FILLER = (
    "The lane is muddy after rain and the children walk along the wall. ",
    "On Fridays carts come down from the hills with cheese, wool and firewood. ",
    "Nobody remembers who planted the old lime tree beside the pond. ",
)


def write_villages(path: Path, per_village: int = 4) -> Path:
    """Write the data set folder: 24 documents, `per_village` questions each."""
    generator = random.Random(7)
    (path / "corpus").mkdir(parents=True)
    facts: list[tuple[str, str, str, str]] = []
    for village in VILLAGES:
        text = f"# {village}\n\n"
        for trade in TRADES:
            name = generator.choice(NAMES)
            sentence = f"The {trade} of {village} is {name}."
            text += generator.choice(FILLER) + sentence + " " + generator.choice(FILLER) + "\n\n"
            facts.append((village, trade, name, sentence))
        (path / "corpus" / f"{village.lower()}.md").write_text(text, encoding="utf-8")
    documents = {document.id: document for document in load_corpus(path / "corpus").documents}
    examples = []
    for village, trade, name, sentence in facts:
        if TRADES.index(trade) < per_village:
            doc = documents[f"{village.lower()}.md"]
            start = doc.text.index(sentence)
            fact: Fact = (Place(Span(doc.id, start, start + len(sentence)), sentence),)
            examples.append(Example(f"{village}-{trade}", f"Who is the {trade} of {village}?", (name,), (fact,)))
    write_dataset(path, {"license": "CC0-1.0"}, split_examples(examples, documents, 0), "Villages and who works there.")
    return path


def read_villages(body: dict[str, Any]) -> str:
    """Answer the last question of a prompt from the sentences in it; the model of an `OpenAIServer`."""
    prompt = body.get("prompt") or "\n".join(str(message["content"]) for message in body["messages"])
    trade, village = re.findall(r"Who is the (\w+) of (\w+)\?", prompt)[-1]
    found = re.findall(rf"The {trade} of {village} is (\w+)\.", prompt)
    answer = found[-1] if found else "nobody in particular"
    if "[[ ## " in prompt:
        return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"
    return answer


def write_study(path: Path, dataset: Path, api_base: str, **changes: Any) -> Path:
    """Write a small study over the villages that asks a server; JSON is YAML, too."""
    study = {
        "name": "villages",
        "dataset": str(dataset),
        "lm": {"model": "openai/reader", "api_base": api_base, "retries": 0, "threads": 4},
        "space": {
            "chunk_size": [32, 64],
            "retriever": ["dense", "sparse"],
            "reranker": ["none", "lexical"],
            "retrieve_k": [8],
            "top_k": [1, 2, 3],
        },
        "baseline": {"chunk_size": 64, "top_k": 1, "retriever": "dense", "prompt_format": "compact"},
        "optimizers": {"labeled_fewshot": {"k": 2}},
        "finalists": 2,
        "budget": {"lm_calls": 260},
        "examples": {"search": 12, "confirm": 8, "test": 24},
    }
    path.write_text(json.dumps(study | changes, indent=1), encoding="utf-8")
    return path
