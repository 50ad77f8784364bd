from __future__ import annotations

import dspy
import pytest

from optimize.data.example import Example
from optimize.metrics.metric import Score
from optimize.metrics.table import load_metric


def score(name: str, answer: str, *golds: str) -> Score:
    return load_metric(name)(Example("q1", "Who?", golds), dspy.Prediction(answer=answer))


# Answer, gold answer, and what rouge-score 0.1.2 (without stemming) and sacrebleu 2.6.0 say of them.
REFERENCE = [
    ("police killed the gunman", "police kill the gunman", 0.75, 0.333333, 0.75, 0.353553, 0.816239),
    ("the gunman kill police", "police killed the gunman", 0.75, 0.333333, 0.5, 0.353553, 0.624671),
    (
        "The Eiffel Tower was finished in 1889, in Paris.",
        "It was finished in Paris in 1889",
        *(0.75, 0.571429, 0.5, 0.197294, 0.676192),
    ),
    ("a b c d e f g", "g f e d c b a", 1.0, 0.0, 0.142857, 0.106822, 0.166667),
    ("cat cat cat", "the cat sat", 0.333333, 0.0, 0.333333, 0.275161, 0.197421),
    ("cat", "dog", 0.0, 0.0, 0.0, 0.0, 0.0),
    (
        "Built by Gustave Eiffel's company (1887-1889)",
        "built from 1887 to 1889 by the company of Gustave Eiffel",
        *(0.736842, 0.117647, 0.421053, 0.056775, 0.477384),
    ),
]


@pytest.mark.parametrize(("answer", "gold", "rouge1", "rouge2", "rouge_l", "bleu", "chrf"), REFERENCE)
def test_values_are_those_of_the_reference_implementations(
    answer: str, gold: str, rouge1: float, rouge2: float, rouge_l: float, bleu: float, chrf: float
) -> None:
    names = ("rouge1", "rouge2", "rougeL", "bleu", "chrf")
    found = [score(name, answer, gold) for name in names]
    assert found == pytest.approx([rouge1, rouge2, rouge_l, bleu, chrf], abs=1e-6)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "chrf"])
def test_the_closest_gold_answer_counts(name: str) -> None:
    far, near = "nothing of the kind", "police kill the gunman"
    assert score(name, "police killed the gunman", far, near) == score(name, "police killed the gunman", near) > 0


def test_bleu_takes_all_gold_answers_as_references() -> None:
    from sacrebleu import sentence_bleu

    golds = ["police kill the gunman", "the gunman was killed by the police"]
    expected = sentence_bleu("police killed the gunman", golds, use_effective_order=True).score / 100
    assert score("bleu", "police killed the gunman", *golds) == pytest.approx(expected)
    assert expected > score("bleu", "police killed the gunman", golds[0])


@pytest.mark.parametrize("name", ["token_f1", "rouge1", "rougeL", "bleu"])
def test_text_without_spaces_is_one_word_and_chrf_sees_its_characters(name: str) -> None:
    assert score(name, "北京市", "北京市朝阳区") == 0
    assert 0.3 < score("chrf", "北京市", "北京市朝阳区") < 0.9


def test_rouge_knows_letters_beyond_ascii() -> None:
    assert score("rouge1", "Адам спит", "Адам и Ева") == pytest.approx(2 / 5)
    assert score("rouge1", "हिन्दी भाषा है", "हिन्दी") == pytest.approx(1 / 2)
    assert score("rouge1", "cafe\u0301 noir", "caf\u00e9") == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["embedding_similarity", "embedding_similarity:wordllama@64"])
def test_embeddings_see_what_words_do_not(name: str) -> None:
    near = score(name, "an automobile factory", "opera singing", "car plant")
    far = score(name, "an automobile factory", "opera singing")
    assert 0 <= far < near - 0.2 < near <= 1
    assert score("token_f1", "an automobile factory", "car plant") == 0
    assert load_metric(name).name == name


def test_embedding_of_the_whole_model_is_the_default() -> None:
    metric = load_metric("embedding_similarity:wordllama")
    assert metric.name == "embedding_similarity"
    prediction = dspy.Prediction(answer="car works")
    asked = Example("q1", "Who?", ("car plant",))
    assert metric(asked, prediction) == load_metric("embedding_similarity")(asked, prediction)
