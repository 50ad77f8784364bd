from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from optimize.compiling.candidate import Candidate, Demo, PredictorPrompt, apply_candidate
from optimize.exporting import fill as export_fill
from optimize.exporting.export import export_winner
from optimize.exporting.exported import adopt_changes, load_export
from optimize.inference.statistics import paired_difference
from optimize.settings.study import StudyConfig
from programs.catalogue import build_program
from programs.config import PipelineConfig
from programs.errors import RagwrightError
from programs.lm import LMSpec, open_lm, parse_lm
from programs.response_cache import ResponseCache
from programs.search import open_search
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied

INSTRUCTIONS = "Answer from the context.\nGive the year only."
PLAIN = """
import json, sys
import dspy
class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.generate = dspy.Predict("context: list[str], question -> answer")
program = Program()
program.load(sys.argv[1])
generate = program.generate
assert not {name for name in sys.modules if name.split(".")[0] in ("programs", "optimize")}
print(json.dumps([generate.signature.instructions, [d if isinstance(d, dict) else d.toDict() for d in generate.demos]]))
"""
ADAPTER = """
import json, sys
import dspy
from compact_adapter import CompactAdapter, LlamaCompletionEngine
program = dspy.Predict("context: list[str], question -> answer")
state = json.load(open("program.json"))["generate"]
program.load_state(state)
lm = dspy.LM("tiny", engine=LlamaCompletionEngine("tiny", sys.argv[1], None, 20), max_tokens=9, cache=False)
lm.bare_completions = True
with dspy.context(lm=lm, adapter=CompactAdapter()):
    print(program(context=["{{context}}"], question="{{question}}").answer)
assert not {name for name in sys.modules if name.split(".")[0] in ("programs", "optimize")}
"""

Exporter = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(studied: Studied) -> Path:
    """Holds the one index that all exports share."""
    return studied.run.path.parent


@pytest.fixture
def exported(studied: Studied, runs: Path, tmp_path: Path) -> Exporter:
    """Exports the winner, with another prompt format, program or LM where asked."""

    def make(config: PipelineConfig = WINNER, program: str = "rag", lm: Any = "local", **options: Any) -> Path:
        search = open_search(runs, studied.dataset.corpus, config)
        built = build_program(program, search)
        demo = Demo("train-0", {"answer": "1800"})
        names = [name for name, _ in built.named_predictors()]
        prompts = {name: PredictorPrompt(INSTRUCTIONS, (demo,) if name == "generate" else ()) for name in names}
        apply_candidate(built, Candidate(prompts), {example.id: example for example in studied.dataset.examples})
        assert studied.outcome.winner is not None
        outcome = replace(studied.outcome, winner=replace(studied.outcome.winner, config=config))
        study = StudyConfig(name="towers", dataset=str(studied.dataset.path), program=program)
        folder = options.pop("folder", tmp_path / "out")
        return export_winner(outcome, study, _spec(lm), studied.dataset, built, folder, **options)

    return make


def _spec(lm: Any) -> LMSpec:
    return lm if isinstance(lm, LMSpec) else parse_lm(lm)


def run_plain(script: str, *arguments: str, folder: Path) -> str:
    """Run a script in a Python that does not see this project."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{script}", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_dspy_loads_the_program(exported: Exporter) -> None:
    folder = exported()
    instructions, [demo] = json.loads(run_plain(PLAIN, str(folder / "program.json"), folder=folder))
    assert instructions == INSTRUCTIONS
    assert demo["answer"] == "1800"
    assert demo["question"] == "When was the tower train 0 built?"
    assert "1800" in demo["context"][0]
    assert json.loads((folder / "program.json").read_text())["generate"]["lm"] is None


def test_a_bare_completion_is_a_text_with_its_stop(exported: Exporter) -> None:
    folder = exported()
    assert {file.name for file in folder.iterdir()} == {
        "program.json",
        "prompt.md",
        "prompt.txt",
        "compact_adapter.py",
        "fill.py",
        "pipeline.yaml",
        "manifest.json",
    }
    text = (folder / "prompt.txt").read_text(encoding="utf-8")
    assert text.startswith(INSTRUCTIONS)
    assert text.endswith("Context: {{context}}\nQuestion: {{question}}\nAnswer:")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["endpoint"]["kind"] == "completion"
    [prompt] = manifest["prompts"]
    assert (prompt["predictor"], prompt["file"], prompt["stop"]) == ("generate", "prompt.txt", "\n")
    assert (prompt["inputs"], prompt["outputs"]) == (["context", "question"], ["answer"])
    assert (prompt["settings"]["temperature"], prompt["settings"]["stop"]) == (0.0, ["\n"])


def test_the_adapter_alone_sends_what_the_text_says(exported: Exporter) -> None:
    folder = exported()
    with OpenAIServer(answer=lambda body: " 1804\nQuestion: more?") as server:
        assert run_plain(ADAPTER, server.url, folder=folder).strip() == "1804"
    [request] = server.requests
    assert request.path.endswith("/completions")
    assert request.prompt == (folder / "prompt.txt").read_text(encoding="utf-8")
    assert request.body["stop"] == ["\n"]
    [entry] = json.loads((folder / "manifest.json").read_text())["prompts"]
    assert request.body["grammar"] == entry["settings"]["extra_body"]["grammar"]


@pytest.mark.parametrize("prompt_format", ["chat", "json", "xml", "compact"])
def test_chats_are_messages_with_placeholders(exported: Exporter, prompt_format: str) -> None:
    lm = {"model": "openai/tiny", "api_base": "http://me:secret@127.0.0.1:9/v1?key=secret"}
    folder = exported(replace(WINNER, prompt_format=prompt_format), lm=lm)
    [prompt] = json.loads((folder / "messages.json").read_text(encoding="utf-8"))
    text = "\n".join(message["content"] for message in prompt["messages"])
    assert prompt["predictor"] == "generate"
    assert {message["role"] for message in prompt["messages"]} <= {"system", "user", "assistant"}
    assert "{{context}}" in text
    assert "{{question}}" in text
    assert "Give the year only." in text
    assert not (folder / "prompt.txt").exists()
    assert (folder / "compact_adapter.py").exists() == (prompt_format == "compact")
    for file in folder.iterdir():
        assert "secret" not in file.read_text(encoding="utf-8")


def test_every_predictor_has_its_prompt(exported: Exporter) -> None:
    folder = exported(program="multihop")
    assert (folder / "prompt-next_query.txt").is_file()
    assert (folder / "prompt-generate.txt").is_file()
    assert (
        'self.next_query = dspy.Predict("context: list[str], question -> query")' in (folder / "prompt.md").read_text()
    )


def test_the_page_for_people_has_prompt_settings_and_result(exported: Exporter) -> None:
    page = (exported() / "prompt.md").read_text(encoding="utf-8")
    assert INSTRUCTIONS in page
    assert "answer: 1800" in page
    assert "| chunk_size | 64 | tokens in a chunk, at most |" in page
    assert "| reranker |" not in page  # it does nothing
    assert "`prompt.txt` has it as it is sent" in page
    assert "Better: the winner scores 0.833" in page
    snippet = page.split("```python\n")[1].split("```")[0]
    compile(snippet, "prompt.md", "exec")


def test_the_manifest_says_what_it_was_made_from(exported: Exporter, studied: Studied) -> None:
    manifest = json.loads((exported() / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["versions"]) == {"ragwright", "dspy", "chromadb", "mlflow"}
    assert manifest["dataset"]["fingerprint"] == studied.dataset.fingerprint
    assert manifest["corpus"] == studied.dataset.corpus.fingerprint
    assert manifest["verdict"] == "better"
    new = manifest["scores"]["test"]["winner"]
    assert new["score"] == pytest.approx(10 / 12)
    assert new["low"] < new["score"] < new["high"]
    assert manifest["scores"]["search"]["winner"]["score"] == pytest.approx(11 / 12)


def test_what_has_no_bound_is_null(studied: Studied, exported: Exporter) -> None:
    """With one group of questions there is no interval; JSON has no infinity."""
    whole, one = studied.outcome, paired_difference([0.5, 0.25], ["d", "d"])
    studied.outcome = replace(whole, difference=one)
    try:
        text = (exported() / "manifest.json").read_text(encoding="utf-8")
    finally:
        studied.outcome = whole
    found = json.loads(text, parse_constant=pytest.fail)["difference"]
    assert (found["mean"], found["low"], found["high"]) == (0.375, None, None)


def test_before_the_test_there_is_no_interval_and_no_verdict(studied: Studied, exported: Exporter) -> None:
    studied_before, studied.outcome = studied.outcome, studied.confirmed
    try:
        manifest = json.loads((exported() / "manifest.json").read_text(encoding="utf-8"))
    finally:
        studied.outcome = studied_before
    assert manifest["verdict"] is None
    assert manifest["scores"]["test"] == {"baseline": None, "winner": None}


def test_an_export_is_replaced_and_nothing_else_is(exported: Exporter, tmp_path: Path) -> None:
    folder = exported()
    (folder / "left.txt").write_text("x")
    assert exported() == folder
    assert not (folder / "left.txt").exists()
    with pytest.raises(RagwrightError, match="exists already"):
        exported(overwrite=False)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "work.txt").write_text("x")
    with pytest.raises(RagwrightError, match="is no export"):
        exported(folder=other)
    assert [file.name for file in other.iterdir()] == ["work.txt"]


def test_an_export_is_replaced_at_once(exported: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any moment there is the old export, the new one or none: half of one could never be replaced."""
    folder = exported()
    remove, removed = shutil.rmtree, []

    def watched(path: Path, **options: Any) -> None:
        removed.append(Path(path).name)
        assert json.loads((folder / "manifest.json").read_text())
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    exported()
    assert folder.name not in removed
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_a_study_without_a_winner_has_no_export(studied: Studied, tmp_path: Path) -> None:
    study = StudyConfig(name="towers", dataset="x")
    program = build_program("rag", lambda _: ())
    with pytest.raises(RagwrightError, match="no winner"):
        export_winner(studied.begun, study, LMSpec("local"), studied.dataset, program, tmp_path / "out")


def test_a_loaded_export_answers_with_its_passages(exported: Exporter, runs: Path) -> None:
    with OpenAIServer(answer=lambda body: " 1807\nmore") as server:
        folder = exported(lm={"model": "openai/tiny", "api_base": server.url, "endpoint": "completion"})
        loaded = load_export(folder, runs)
        answer, passages = loaded.ask("When was the tower test 7 built?")
    assert answer == "1807"
    assert [passage.span.doc_id for passage in passages] == ["test-7.md"]
    [request] = server.requests
    assert request.prompt.startswith(INSTRUCTIONS)
    assert "Question: When was the tower train 0 built?\nAnswer: 1800" in request.prompt
    assert loaded.config == WINNER
    assert loaded.metric == "token_f1"


def moved(folder: Path, tmp_path: Path) -> Path:
    """A copy of an export's corpus, which the export is told of."""
    pipeline = yaml.safe_load((folder / "pipeline.yaml").read_text())
    copy = tmp_path / "corpus"
    copy.mkdir()
    for file in Path(pipeline["corpus"]["path"]).iterdir():
        (copy / file.name).write_text(file.read_text())
    pipeline["corpus"]["path"] = str(copy)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return copy


def test_another_corpus_is_refused(exported: Exporter, runs: Path, tmp_path: Path) -> None:
    folder = exported()
    copy = moved(folder, tmp_path)
    assert load_export(folder, runs).changes == ()
    (copy / "new.md").write_text("Something else.")
    with pytest.raises(RagwrightError, match=r"the corpus has changed .* Restore the corpus, .* ragwright evaluate"):
        load_export(folder, runs)
    copy.rename(tmp_path / "gone")
    with pytest.raises(RagwrightError, match=r"corpus.path"):
        load_export(folder, runs)


def test_an_export_travels_with_its_documents(
    exported: Exporter, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported()
    copy = moved(folder, tmp_path)
    pipeline = yaml.safe_load((folder / "pipeline.yaml").read_text())
    pipeline["corpus"]["path"] = "../documents"
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.rename(elsewhere / "export")
    copy.rename(elsewhere / "documents")
    monkeypatch.chdir(tmp_path)
    assert load_export(elsewhere / "export", runs).changes == ()
    # A place that was right stays as it was written.
    (elsewhere / "documents" / "new.md").write_text("New.")
    adopt_changes(load_export(elsewhere / "export", runs, accept_changes=True), {"score": 0.5})
    assert "path: ../documents" in (elsewhere / "export" / "pipeline.yaml").read_text()
    assert load_export(elsewhere / "export", runs).changes == ()


def test_other_settings_than_the_measured_are_refused_until_adopted(exported: Exporter, runs: Path) -> None:
    folder = exported()
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("top_k: 1", "top_k: 2"))
    with pytest.raises(RagwrightError, match=r"other pipeline settings than those that were measured.*evaluate"):
        load_export(folder, runs)
    adopt_changes(load_export(folder, runs, accept_changes=True), {"score": 0.4})
    assert load_export(folder, runs).config.top_k == 2
    # What has no part in the score may be changed.
    (folder / "pipeline.yaml").write_text(text.replace("threads: 1", "threads: 2"))
    (folder / "manifest.json").write_text((exported(folder=folder.parent / "again") / "manifest.json").read_text())
    assert load_export(folder, runs).changes == ()


def test_a_changed_corpus_is_opened_when_asked_and_adopted(exported: Exporter, runs: Path, tmp_path: Path) -> None:
    folder = exported()
    before = json.loads((folder / "manifest.json").read_text())
    copy = moved(folder, tmp_path)
    (copy / "new.md").write_text("The lighthouse of Karr was built in 1766.")
    there = tmp_path / "there"
    copy.rename(there)
    loaded = load_export(folder, runs, corpus=there, accept_changes=True)
    [change] = loaded.changes
    assert before["corpus"] in change
    assert loaded.corpus in change
    assert "37 documents" in change
    assert loaded.program.search("lighthouse of Karr")[0].span.doc_id == "new.md"
    adopt_changes(loaded, {"score": 0.5})
    assert load_export(folder, runs).changes == ()
    after = json.loads((folder / "manifest.json").read_text())
    assert (after["corpus"], after["scores"]) == (loaded.corpus, before["scores"])
    assert [again["score"] for again in after["measured_again"]] == [0.5]
    assert after["measured_again"][0]["changes"] == [change]


def test_another_index_of_the_same_corpus_is_refused(exported: Exporter, runs: Path) -> None:
    folder = exported()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["index"], manifest["versions"]["ragwright"] = "0123456789ab", "0.0.1"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RagwrightError, match=r"it was 0123456789ab\): the export was made by ragwright 0\.0\.1"):
        load_export(folder, runs)
    assert len(load_export(folder, runs, accept_changes=True).changes) == 1


def test_worked_examples_are_the_studys_own_answers(exported: Exporter, runs: Path, studied: Studied) -> None:
    """Asked once before, written down without another call, and never from the test split."""
    cache = runs / "cache" / "worked.sqlite"
    with OpenAIServer(answer=lambda body: f" {len(str(body))}\nmore") as server:
        spec = parse_lm({"model": "openai/tiny", "api_base": server.url, "endpoint": "completion"})
        folder = exported(lm=spec, cache=cache)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["examples"], server.requests) == ([], [])
        assert "left out" in manifest["examples_missing"]
        loaded = replace(load_export(folder, runs), lm=open_lm(spec, cache=ResponseCache(cache)))
        asked = [studied.dataset.test[0], studied.dataset.train[3], studied.dataset.validation[5]]
        answers = {example.id: loaded.ask(example.question)[0] for example in asked}
        calls = len(server.requests)
        manifest = json.loads((exported(lm=spec, cache=cache) / "manifest.json").read_text())
        assert len(server.requests) == calls
        only = exported(lm=spec, cache=cache, asked=["train-3", "test-0"], folder=folder.parent / "only")
    assert [one["id"] for one in json.loads((only / "manifest.json").read_text())["examples"]] == ["train-3"]
    found = {example["id"]: example for example in manifest["examples"]}
    assert set(found) == {"validation-5", "train-3"}
    assert manifest["examples_missing"].startswith("2 of 3")
    for example_id, example in found.items():
        assert example["answer"] == answers[example_id]
        [call] = example["calls"]
        assert call["predictor"] == "generate"
        assert call["inputs"]["context"] == [passage["text"] for passage in example["passages"]]
        assert call["outputs"] == {"answer": example["answer"]}
        assert export_fill.request(folder=folder, **call["inputs"])["prompt"] == call["prompt"]
        assert export_fill.read(call["reply"], folder=folder) == call["outputs"]
        assert call["prompt"] in {request.prompt for request in server.requests}


def test_half_a_character_in_a_reply_is_escaped(exported: Exporter, runs: Path, studied: Studied) -> None:
    cache = runs / "cache" / "halves.sqlite"
    with OpenAIServer(answer=lambda body: "1805 \ud83d") as server:
        spec = parse_lm({"model": "openai/tiny", "api_base": server.url})
        loaded = load_export(exported(lm=spec), runs)
        replace(loaded, lm=open_lm(spec, cache=ResponseCache(cache))).ask(studied.dataset.validation[0].question)
        folder = exported(lm=spec, cache=cache)
    [example] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["examples"]
    assert example["answer"].startswith("1805 ")


def test_a_worked_example_shows_every_call(exported: Exporter, runs: Path, studied: Studied) -> None:
    cache = runs / "cache" / "hops.sqlite"
    with OpenAIServer(answer=lambda body: "the tower train 2") as server:
        spec = parse_lm({"model": "openai/tiny", "api_base": server.url})
        loaded = load_export(exported(program="multihop", lm=spec), runs)
        replace(loaded, lm=open_lm(spec, cache=ResponseCache(cache))).ask(studied.dataset.validation[0].question)
        folder = exported(program="multihop", lm=spec, cache=cache)
    [example] = json.loads((folder / "manifest.json").read_text())["examples"]
    assert [call["predictor"] for call in example["calls"]] == ["next_query", "generate"]
    assert example["calls"][0]["outputs"] == {"query": "the tower train 2"}
    assert len(example["calls"][1]["inputs"]["context"]) == 2
    for call in example["calls"]:
        filled = export_fill.request(call["predictor"], folder=folder, **call["inputs"])
        assert filled["messages"] == call["messages"]
    page = (folder / "prompt.md").read_text(encoding="utf-8")
    assert example["question"] in page
    assert "The LM replied to `next_query`" in page


def test_the_page_for_people_runs_as_it_stands(exported: Exporter) -> None:
    """Its code for plain DSPy, for the openai package and for neither, against a server."""
    for kind in ("completion", "chat"):
        with OpenAIServer(answer=lambda body: " 1804\nmore") as server:
            spec = parse_lm({"model": "openai/tiny", "api_base": server.url, "endpoint": kind, "max_tokens": 9})
            folder = exported(lm=spec)
            blocks = (folder / "prompt.md").read_text(encoding="utf-8").split("```python\n")[1:]
            for block in blocks:
                code = block.split("```")[0].replace("[...]", '["a", "b"]').replace('"..."', '"When?"')
                assert "1804" in run_plain(code, folder=folder)
        first, *others = server.requests
        assert len(others) == 2
        for other in others:
            assert (other.path, other.prompt) == (first.path, first.prompt)
            assert other.body == {name: first.body.get(name) for name in other.body}


@pytest.mark.parametrize(
    ("lm", "address", "key"),
    [
        ({"model": "openai/tiny"}, "https://api.openai.com/v1", 'os.environ["OPENAI_API_KEY"]'),
        ({"model": "groq/tiny", "api_key_env": "MINE"}, "https://api.groq.com/openai/v1", 'os.environ["MINE"]'),
        ({"model": "openai/tiny", "api_base": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1", '"no-key"'),
    ],
)
def test_the_page_names_address_and_key_of_a_provider(
    exported: Exporter, monkeypatch: pytest.MonkeyPatch, lm: dict[str, str], address: str, key: str
) -> None:
    for name in ("OPENAI_API_KEY", "GROQ_API_KEY", "MINE"):
        monkeypatch.setenv(name, "sk-canary")
    page = (exported(replace(WINNER, prompt_format="chat"), lm=lm) / "prompt.md").read_text()
    assert f'client = OpenAI(base_url="{address}", api_key={key})' in page
    assert f'ask("{address}", "tiny", context=[...]' in page
    assert (f"key={key}))" in page) == key.startswith("os")
    for block in page.split("```python\n")[1:]:
        code = block.split("```")[0]
        assert ("import os\n" in code) == ("os.environ" in code)
    # DSPy finds a provider's own address and usual key itself.
    [opened] = [line for line in page.splitlines() if line.startswith("lm = ")]
    assert ("api_base" in opened) == ("api_base" in lm)
    assert ("api_key" in opened) == (len(lm) > 1)


def test_no_key_is_in_any_file(exported: Exporter, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "sk-canary-77d1"
    monkeypatch.setenv("TINY_KEY", canary)
    with OpenAIServer(answer=lambda body: "1805", key=canary) as server:
        address = server.url.replace("http://", f"http://user:{canary}@") + f"?api_key={canary}"
        spec = parse_lm({"model": "openai/tiny", "api_base": address, "api_key_env": "TINY_KEY"})
        cache = runs / "cache" / "canary.sqlite"
        exported(lm=spec, cache=cache)
        folder = exported(lm=spec, cache=cache)
    for file in folder.iterdir():
        assert canary not in file.read_text(encoding="utf-8"), file
    assert "TINY_KEY" in (folder / "prompt.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("wanted", [{"temperature": None, "max_tokens": None}, {"temperature": 0.7, "max_tokens": 5}])
def test_what_the_lm_is_not_told_stays_untold(exported: Exporter, runs: Path, wanted: dict[str, Any]) -> None:
    folder = exported(lm={"model": "openai/tiny", "api_base": "http://127.0.0.1:9/v1", **wanted})
    spec = load_export(folder, runs).spec
    assert {name: getattr(spec, name) for name in wanted} == wanted


def _set(*place: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last, value = place

    def change(state: dict[str, Any]) -> None:
        node: Any = state
        for key in keys:
            node = node[key]
        node[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("generate", "config", {"api_base": "http://elsewhere"}),
        _set("generate", "fields", {"answer": {}}),
        _set("generate", "lm", {"model": "openai/x", "api_base": "http://elsewhere"}),
        _set("generate", "forward", "x"),
        _set("generate", "traces", [{}]),
        _set("generate", "demos", {}),
        _set("generate", "demos", 0, "dspy_uuid", "x"),
        _set("generate", "demos", 0, "answer", {"a": 1}),
        _set("generate", "signature", "instructions", ["x"]),
        _set("generate", "signature", "fields", []),
        _set("generate", "signature", "more", 1),
        _set("generate", "signature", "fields", 0, "prefix", 1),
        _set("other", {}),
        _set("generate", []),
        lambda state: state.pop("generate"),
        lambda state: state["generate"].pop("lm"),
    ],
)
def test_a_tampered_program_is_not_loaded(
    exported: Exporter, runs: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    folder = exported()
    state = json.loads((folder / "program.json").read_text())
    change(state)
    (folder / "program.json").write_text(json.dumps(state))
    with pytest.raises(RagwrightError, match="not loaded"):
        load_export(folder, runs)


@pytest.mark.parametrize("name", ["program.json", "pipeline.yaml", "manifest.json"])
def test_a_broken_file_is_one_clear_problem(exported: Exporter, runs: Path, name: str) -> None:
    folder = exported()
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 5_000):
        (folder / name).write_bytes(content)
        with pytest.raises(RagwrightError, match=name):
            load_export(folder, runs)
    (folder / name).unlink()
    with pytest.raises(RagwrightError, match=name):
        load_export(folder, runs)


def test_settings_that_are_unknown_are_refused(exported: Exporter, runs: Path) -> None:
    folder = exported()
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("prompt_format: compact", "prompt_format: prose"))
    with pytest.raises(RagwrightError, match=r"pipeline\.yaml: prompt_format 'prose'"):
        load_export(folder, runs)
    for right, wrong, said in (
        ("chunk_size: 64", "chunk_sise: 64", "unknown pipeline setting 'chunk_sise'"),
        ("temperature: 0.0", "temperature: hot", "temperature is 'hot'"),
        ("abstain: false", "abstain: perhaps", "abstain: must be bool, got 'perhaps'"),
        ("  path: ", "  place: ", "corpus.path: must be a path, got None"),
    ):
        (folder / "pipeline.yaml").write_text(text.replace(right, wrong))
        with pytest.raises(RagwrightError, match=rf"pipeline\.yaml: {said}"):
            load_export(folder, runs)
