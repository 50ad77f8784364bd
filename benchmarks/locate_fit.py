"""Fit the weights of `ragwright data locate` on the train split of a data set with evidence, SQuAD as imported.

Run: uv run python benchmarks/locate_fit.py FOLDER
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from optimize.data.dataset import load_dataset
from optimize.data.example import Example
from optimize.data.locating.index import SentenceIndex
from optimize.data.locating.locating import EMBEDDER
from optimize.data.locating.support import FEATURES, Candidates, find_candidates
from programs.embedding import open_embedder
from programs.environment import set_environment_defaults

SHARES = {"as it is": 1.0, "in other words": 0.1, "other answer": 0.4, "taken away": 0.1}
"""What is made of each question -> what it counts for in the fit."""
RIDGE = 1e-3
UNKNOWN = "zqxj"
STATED = [FEATURES.index(name) for name in ("answers_found", "answer_rarity", "answer_alone")]
ALONE = FEATURES.index("answer_alone")
FOUND = FEATURES.index("answers_found")


@dataclass(frozen=True)
class Case:
    """One question with the features of its candidates; `right` says which of them state the answer, maybe none."""

    features: NDArray[np.float64]
    right: NDArray[np.bool_]
    share: float


def make_cases(index: SentenceIndex, examples: Sequence[Example]) -> list[Case]:
    embedder = open_embedder(EMBEDDER)
    generator = random.Random(0)
    words = [word for example in examples for answer in example.known_answers for word in answer.split()]
    plain = [(example.question, example.known_answers) for example in examples]
    changed = [(question, (change(answers[0], words, generator),)) for question, answers in plain]
    cases: list[Case] = []
    for example, here, other in zip(
        examples, find_candidates(index, embedder, plain), find_candidates(index, embedder, changed), strict=True
    ):
        cases += _of_one(here, right_rows(index, example, here), "as it is")
        cases += _of_one(other, right_rows(index, example, other), "other answer")
    return cases


def change(answer: str, words: Sequence[str], generator: random.Random) -> str:
    """An answer misspelt, or about half of its words with others that are wrong or occur nowhere."""
    if generator.random() < 1 / 3:
        return " ".join(_misspelt(word, generator) for word in answer.split())
    kept = [word for word in answer.split() if generator.random() < 0.5]
    kept = kept[1:] if len(kept) == len(answer.split()) else kept
    for _ in range(generator.randint(0 if kept else 1, 2)):
        kept.append(generator.choice(words) if generator.random() < 0.5 else UNKNOWN)
    generator.shuffle(kept)
    return " ".join(kept)


def _misspelt(word: str, generator: random.Random) -> str:
    at = generator.randrange(len(word))
    return word[:at] + word[at + 1 :] if len(word) > 4 and word.isalpha() else word


def right_rows(index: SentenceIndex, example: Example, candidates: Candidates) -> NDArray[np.bool_]:
    places = [place.span for fact in example.evidence for place in fact]

    def holds(sentence: int) -> bool:
        doc_id, (start, end) = index.documents[index.document[sentence]].id, index.spans[sentence]
        return any(place.doc_id == doc_id and place.start < end and start < place.end for place in places)

    return np.array([holds(sentence) for sentence in candidates.sentences.tolist()], dtype=bool)


def _of_one(candidates: Candidates, right: NDArray[np.bool_], kind: str) -> list[Case]:
    """The case itself; with the true place stating the answer otherwise; and with the true place taken away."""
    features = candidates.features
    cases = [Case(features, right, SHARES[kind])]
    elsewhere = (features[:, FOUND] > 0) & ~right
    if kind == "as it is" and elsewhere.any():
        otherwise = features.copy()
        otherwise[np.ix_(right, STATED)] = 0.0
        cases.append(Case(_alone(otherwise), right, SHARES["in other words"]))
    cases.append(Case(_alone(features[~right]), right[~right], SHARES["taken away"]))
    return cases


def _alone(features: NDArray[np.float64]) -> NDArray[np.float64]:
    stated = features[:, FOUND] > 0
    features = features.copy()
    features[:, ALONE] = stated / max(1, stated.sum())
    return features


def fit(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Weights of the features, and the utility of *nowhere* at the end, by penalized maximum likelihood."""
    blocks = [np.hstack([case.features, np.zeros((len(case.features), 1))]) for case in cases]
    nowhere = np.append(np.zeros(len(FEATURES)), 1.0)
    rows = np.vstack([row for block in blocks for row in (block, nowhere[None])])
    good = np.concatenate([np.append(case.right, not case.right.any()) for case in cases]).astype(float)
    sizes = np.array([len(case.right) + 1 for case in cases])
    starts = np.append(0, np.cumsum(sizes)[:-1])
    owner = np.repeat(np.arange(len(cases)), sizes)
    counts = np.array([case.share for case in cases])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        utilities = rows @ weights
        odds = np.exp(utilities - np.maximum.reduceat(utilities, starts)[owner])
        shares = odds / np.add.reduceat(odds, starts)[owner]
        hit = np.add.reduceat(shares * good, starts) + 1e-12
        slope = rows.T @ ((shares - shares * good / hit[owner]) * counts[owner]) / counts.sum()
        value = -(counts * np.log(hit)).sum() / counts.sum() + RIDGE * weights @ weights
        return float(value), slope + 2 * RIDGE * weights

    return minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B").x


def main(folder: Path) -> None:
    set_environment_defaults()
    dataset = load_dataset(folder)
    examples = [example for example in dataset.train if example.answers and example.evidence]
    weights = fit(make_cases(SentenceIndex(dataset.corpus.documents), examples))
    for name, weight in zip((*FEATURES, "nowhere"), weights, strict=True):
        print(f"{name:<18} {weight:6.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
