"""How well places of a corpus support an answer to a question, and how sure the best of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from optimize.data.locating.index import Numbers, Occurrence, SentenceIndex, Shares, key_terms
from optimize.data.locating.text import words
from optimize.data.locating.values import values
from programs.embedding import Embedder

FEATURES = (
    "question_here",
    "question_beside",
    "question_meaning",
    "both_meaning",
    "answers_found",
    "answer_rarity",
    "answer_alone",
    "answer_terms",
)
"""What is known of a sentence, each in [0, 1] (a cosine may be below 0), higher for better support:

- question_here: share of the question's terms in the sentence, rare ones counting more; not those of the answers;
- question_beside: share that only a sentence before or after it has;
- question_meaning: cosine of the question's and the sentence's vectors;
- both_meaning: the same for the question together with its first answer;
- answers_found: share of the question's answers that the sentence states word for word, in any spelling;
- answer_rarity: how rare the words of the longest such answer are; 1 for six words that occur once each;
- answer_alone: 1 by the number of sentences that state an answer so;
- answer_terms: where no answer is stated so, the largest share of an answer's terms in the sentence, but for those of
  the question; misspelt ones count a little less.
"""

WEIGHTS = np.array([5.09, 2.84, 1.69, 3.97, 2.75, 2.25, 1.99, 2.19])
NOWHERE = 6.88
"""`WEIGHTS`, one for each feature, and the utility of *the corpus does not say it*: a conditional logit (McFadden 1974)
fitted on SQuAD's train split by `benchmarks/locate_fit.py`, over answers as they are and replaced by others, with the
true sentence in place and taken away."""

SURE = 0.5
"""Confidence from which a place is taken without asking; chosen on SQuAD's train split."""

_PASSAGES = 20
_RARE_WORDS = 6
_POLAR = frozenset({"yes", "no", "true", "false", "y", "n"})


@dataclass
class Candidates:
    """The sentences that may state one question's answer.

    Attributes:
        question: The question.
        answers: Its answers without those that only say yes or no.
        sentences: Their numbers.
        features: A row for each sentence, a column for each of `FEATURES`.
        occurrences: Where answers stand in them word for word.
    """

    question: str
    answers: tuple[str, ...]
    sentences: Numbers
    features: NDArray[np.float64]
    occurrences: dict[int, list[Occurrence]] = field(default_factory=dict)

    def confidences(self) -> Shares:
        """For each sentence the probability that it is the one that states the answer.

        The utility of a sentence is the weighted sum of its features; the probabilities of all sentences and of
        *the corpus does not say it* are in proportion to the exponentials of their utilities. So a place is sure only
        if it fits well in itself and clearly better than every other.
        """
        utilities = np.append(self.features @ WEIGHTS, NOWHERE)
        odds = np.exp(utilities - utilities.max())
        shares: Shares = odds[:-1] / odds.sum()
        return shares


def find_candidates(
    index: SentenceIndex,
    embedder: Embedder,
    asked: Sequence[tuple[str, tuple[str, ...]]],
    on_step: Callable[[int], None] = lambda done: None,
) -> list[Candidates]:
    """The candidates of each question with its answers.

    Args:
        index: The corpus.
        embedder: Gives the vectors.
        asked: Questions with their answers, at least one each.
        on_step: Called with the number of questions that are done.
    """
    found = []
    for number, (question, answers) in enumerate(asked, start=1):
        found.append(_by_words(index, question, answers))
        on_step(number)
    _add_meaning(index, embedder, found)
    return found


def _by_words(index: SentenceIndex, question: str, answers: tuple[str, ...]) -> Candidates:
    """The candidates with every feature but those of meaning."""
    stated = tuple(answer for answer in answers if not _is_polar(answer))
    asked_terms = list(dict.fromkeys(key_terms(values(question))))
    answer_terms = [list(dict.fromkeys(key_terms(values(answer)))) for answer in stated]
    in_answers = {term for found in answer_terms for term in found}
    # Every place of an answer has the answer's own words; only the others tell places apart.
    telling = [term for term in asked_terms if term not in in_answers] or asked_terms
    # What the question says already proves no answer.
    proving = [[term for term in found if term not in asked_terms] for found in answer_terms]

    occurrences: dict[int, list[Occurrence]] = {}
    for occurrence in index.occurrences(stated):
        occurrences.setdefault(occurrence.sentence, []).append(occurrence)
    passages = index.best(dict.fromkeys((*asked_terms, *sorted(in_answers))), _PASSAGES)
    numbers = np.union1d(np.array(sorted(occurrences), dtype=np.intp), passages).astype(np.intp)

    columns = dict.fromkeys(FEATURES, np.zeros(len(numbers)))
    columns["question_here"], columns["question_beside"] = index.shares(telling, numbers)
    with_answer = np.array([number in occurrences for number in numbers.tolist()], dtype=bool)
    if stated:
        here = [{occurrence.answer for occurrence in occurrences.get(number, ())} for number in numbers.tolist()]
        columns["answers_found"] = np.array([len(answers_here) / len(stated) for answers_here in here])
        rarities = [min(1.0, sum(map(index.rarity, found)) / _RARE_WORDS) for found in answer_terms]
        columns["answer_rarity"] = np.array([max((rarities[at] for at in held), default=0.0) for held in here])
        columns["answer_alone"] = with_answer / max(1, with_answer.sum())
    for wanted in filter(None, proving):
        columns["answer_terms"] = np.maximum(columns["answer_terms"], index.shares(wanted, numbers)[0])
    columns["answer_terms"] = np.where(with_answer, 0.0, columns["answer_terms"])
    features = np.stack([columns[name] for name in FEATURES], axis=1)
    return Candidates(question, stated, numbers, features, occurrences)


def _is_polar(answer: str) -> bool:
    """Whether an answer only says yes or no: no text states it by that word."""
    forms = [token.form for token in words(answer)]
    return len(forms) == 1 and forms[0] in _POLAR


def _add_meaning(index: SentenceIndex, embedder: Embedder, found: Sequence[Candidates]) -> None:
    """Fill in the features of meaning, every sentence embedded once."""
    needed = sorted({number for candidates in found for number in candidates.sentences.tolist()})
    if not needed:
        return
    row = {number: at for at, number in enumerate(needed)}
    vectors = embedder.embed([index.text(number) for number in needed])
    questions = embedder.embed([candidates.question for candidates in found])
    both = embedder.embed([" ".join((candidates.question, *candidates.answers[:1])) for candidates in found])
    alone, together = FEATURES.index("question_meaning"), FEATURES.index("both_meaning")
    for at, candidates in enumerate(found):
        texts = vectors[[row[number] for number in candidates.sentences.tolist()]]
        candidates.features[:, alone] = texts @ questions[at]
        candidates.features[:, together] = texts @ both[at]
