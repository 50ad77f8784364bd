from __future__ import annotations

import copy
import pickle  # noqa: TID251  # what DSPy and multiprocessing do to an adapter
from typing import Any, Literal

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from programs.prompt_format import FORMATS, CompactAdapter, render
from tests.openai_server import OpenAIServer

QA = dspy.Signature("context: list[str], question -> answer", "Answer the question.")
STEPS = dspy.Signature("question -> first_thought, answer", "Think.")
DEMOS = [
    {"context": ["One  passage\nover lines.", "Two."], "question": "Which?", "answer": "The first", "augmented": True},
    {"question": "No context?", "answer": "None"},
]
INPUTS = {"context": ["Here \n\n it is."], "question": "What\nnow?"}


def text(signature: Any, demos: list[Any], inputs: dict[str, Any]) -> str:
    [message] = CompactAdapter().format(signature, demos, inputs)
    assert message["role"] == "user"
    return str(message["content"])


def test_the_whole_prompt_is_one_message_of_labelled_lines() -> None:
    assert text(QA, DEMOS, INPUTS) == (
        "Answer the question.\n\n"
        "Context: One passage over lines.\nTwo.\nQuestion: Which?\nAnswer: The first\n\n"
        "Question: No context?\nAnswer: None\n\n"
        "Context: Here it is.\nQuestion: What now?\nAnswer:"
    )


def test_without_instructions_the_prompt_begins_with_the_inputs() -> None:
    assert text(QA.with_instructions(" "), [], INPUTS).startswith("Context: Here")


def test_a_demo_without_an_output_is_left_out() -> None:
    assert text(QA, [{"question": "Nothing?", "context": ["x"]}], INPUTS) == text(QA, [], INPUTS)


def test_a_demo_may_be_an_example() -> None:
    assert text(QA, [dspy.Example(**DEMOS[0])], INPUTS) == text(QA, DEMOS[:1], INPUTS)


def test_several_outputs_each_have_a_line() -> None:
    prompt = text(STEPS, [{"question": "q", "first_thought": "t", "answer": "a"}], {"question": "r"})
    assert prompt == "Think.\n\nQuestion: q\nFirst thought: t\nAnswer: a\n\nQuestion: r\nFirst thought:"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (" Paris", "Paris"),
        ("Paris\nQuestion: and then?", "Paris"),
        ("\n\nParis\n", "Paris"),
        ("Answer: Paris", "Paris"),
        ("Sure, here it is.\nANSWER : Paris\nI hope it helps.", "Paris"),
        ("**Answer:** Paris", "Paris"),
        ("Answer:\nParis", "Paris"),
        ("The answer: it is Paris", "The answer: it is Paris"),
        ("", ""),
        ("  \n ", ""),
    ],
)
def test_one_output_is_the_first_line_or_what_follows_its_label(said: str, answer: str) -> None:
    assert CompactAdapter().parse(QA, said) == {"answer": answer}


def test_later_outputs_need_their_labels() -> None:
    both = {"first_thought": "It rains a lot.", "answer": "Yes"}
    assert CompactAdapter().parse(STEPS, " It rains\na lot.\nAnswer: Yes\nQuestion: x") == both
    assert CompactAdapter().parse(STEPS, "first thought: It rains a lot.\nanswer: Yes") == both
    assert CompactAdapter().parse(STEPS, "\nAnswer:") == {"first_thought": "", "answer": ""}
    with pytest.raises(AdapterParseError, match="Answer: is missing"):
        CompactAdapter().parse(STEPS, "It rains a lot.")


def test_typed_outputs_are_converted_or_refused() -> None:
    typed = dspy.Signature("question -> count: int", "")
    assert CompactAdapter().parse(typed, " 7\n") == {"count": 7}
    with pytest.raises(AdapterParseError):
        CompactAdapter().parse(typed, " seven")
    choice = dspy.Signature("q -> label", "").with_updated_fields("label", type_=Literal["yes", "no"])
    assert CompactAdapter().parse(choice, " yes") == {"label": "yes"}


def test_the_adapter_can_be_copied_and_pickled() -> None:
    adapter = CompactAdapter()
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert twin.format(QA, DEMOS, INPUTS) == adapter.format(QA, DEMOS, INPUTS)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_renders_placeholders(name: str) -> None:
    messages = render(FORMATS[name](), QA, DEMOS)
    assert "{{question}}" in messages[-1]["content"]
    assert "{{context}}" in messages[-1]["content"]


@pytest.mark.parametrize("name", ["chat", "json", "xml"])
def test_an_answer_that_does_not_parse_makes_no_second_call(name: str) -> None:
    with OpenAIServer(answer=lambda body: "???") as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False)
        with dspy.context(lm=lm, adapter=FORMATS[name]()), pytest.raises(AdapterParseError):
            dspy.Predict(STEPS)(question="q")
        assert len(server.requests) == 1


def test_a_chat_model_gets_one_user_message_without_a_stop() -> None:
    with OpenAIServer(answer=lambda body: "Answer: Paris\nBecause.") as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False)
        with dspy.context(lm=lm, adapter=CompactAdapter()):
            assert dspy.Predict(QA)(**INPUTS).answer == "Paris"
        [request] = server.requests
    assert [message["role"] for message in request.body["messages"]] == ["user"]
    assert "stop" not in request.body
    assert "metadata" not in request.body


def test_an_empty_answer_is_an_answer() -> None:
    with OpenAIServer(answer=lambda body: "") as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False)
        with dspy.context(lm=lm, adapter=CompactAdapter()):
            assert dspy.Predict(QA)(**INPUTS).answer == ""


def test_few_shot_optimizers_work_with_it() -> None:
    trainset = [dspy.Example(question=f"What is {n}?", answer="forty-two").with_inputs("question") for n in range(4)]
    with OpenAIServer(answer=lambda body: " forty-two") as server:
        lm = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False)
        with dspy.context(lm=lm, adapter=CompactAdapter()):
            labeled = dspy.LabeledFewShot(k=2).compile(dspy.Predict("question -> answer"), trainset=trainset)
            labeled(question="What?")
            optimizer = dspy.BootstrapFewShot(
                metric=lambda example, prediction, trace=None: example.answer == prediction.answer,
                max_bootstrapped_demos=2,
                max_labeled_demos=0,
            )
            compiled = optimizer.compile(dspy.Predict("question -> answer"), trainset=trainset)
        assert server.requests[0].prompt.count("Answer:") == 3
    assert [demo["answer"] for demo in compiled.demos] == ["forty-two"] * 2
