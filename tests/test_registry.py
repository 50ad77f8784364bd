from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import optimize.exporting.registry
from optimize.compiling.candidate import Candidate, Demo, PredictorPrompt, apply_candidate
from optimize.exporting.export import export_winner
from optimize.exporting.model import undisturbed
from optimize.exporting.registry import Registered, register, registered_name
from optimize.exporting.wheel import build_wheel, pinned_requirements
from optimize.settings.study import StudyConfig
from optimize.tracking.tracker import connect
from programs.catalogue import build_program
from programs.errors import RagwrightError
from programs.lm import parse_lm
from programs.search import open_search
from tests.openai_server import OpenAIServer
from tests.outcomes import WINNER, Studied

CANARY = "sk-canary-5f0c1d"


class Shop:
    """A finished study with its export, an MLflow store and a server that answers."""

    def __init__(self, folder: Path, server: OpenAIServer, migrated: Path) -> None:
        self.server = server
        self.studied = Studied(folder)
        self.runs = self.studied.run.path.parent
        (self.runs / "mlflow.db").write_bytes(migrated.read_bytes())
        self.uri = f"sqlite:///{self.runs / 'mlflow.db'}"
        self.client = connect(self.uri)
        experiment = self.client.create_experiment("handmade", (self.runs / "mlartifacts").as_uri())
        self.run_id = self.client.create_run(experiment).info.run_id
        self.export = self.exported()

    def exported(self, **lm: Any) -> Path:
        """The winner's export, its LM with an address that holds a key."""
        dataset, outcome = self.studied.dataset, self.studied.outcome
        program = build_program("rag", open_search(self.runs, dataset.corpus, WINNER))
        prompts = {"generate": PredictorPrompt("Give the year.", (Demo("train-0", {"answer": "1800"}),))}
        apply_candidate(program, Candidate(prompts), {example.id: example for example in dataset.examples})
        address = self.server.url.replace("http://", f"http://me:{CANARY}@")
        spec = parse_lm(
            {"model": "openai/tiny", "api_base": f"{address}?key={CANARY}", "api_key_env": "TINY_KEY", **lm}
        )
        study = StudyConfig(name="towers", dataset=str(dataset.path))
        return export_winner(outcome, study, spec, dataset, program, self.runs / "export")

    def register(self, verdict: Any = "better") -> Registered:
        outcome = replace(self.studied.outcome, verdict=verdict)
        return register(self.client, self.uri, self.run_id, self.export, outcome)


@pytest.fixture
def shop(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TINY_KEY", CANARY)
    monkeypatch.setenv("RAGWRIGHT_RUNS", str(tmp_path / "elsewhere"))
    with OpenAIServer(answer=lambda body: "1807", key=CANARY) as server:
        yield Shop(tmp_path, server, migrated)


def test_prompt_and_model_are_registered_with_their_scores(shop: Shop) -> None:
    found = shop.register()
    assert found.name == "ragwright-handmade-towers"
    assert found.aliases == ("challenger", "champion")
    prompt_name, version = found.prompts["generate"]
    [listed] = shop.client.search_prompts(f"name = '{prompt_name}'")
    assert listed.tags["_mlflow_experiment_ids"] == f",{shop.client.get_run(shop.run_id).info.experiment_id},"
    prompt = shop.client.load_prompt(f"prompts:/{prompt_name}@challenger")
    assert (prompt.version, prompt.commit_message) == (version, json.loads(manifest(shop))["result"])
    assert prompt.template == json.loads((shop.export / "messages.json").read_text())[0]["messages"]
    assert prompt.model_config == {"model_name": "openai/tiny", "temperature": 0.0}
    assert prompt.tags["ragwright.test.winner.score"] == "0.8333"
    model = shop.client.get_model_version_by_alias(found.name, "champion")
    assert (int(model.version), model.run_id) == (found.model_version, shop.run_id)
    assert model.tags["ragwright.verdict"] == "better"
    assert float(model.tags["ragwright.test.difference.low"]) > 0
    run = shop.client.get_run(shop.run_id)
    assert json.loads(run.data.tags["mlflow.linkedPrompts"]) == [{"name": prompt_name, "version": str(version)}]
    [output] = run.outputs.model_outputs
    assert shop.client.get_logged_model(output.model_id).status == "READY"


def logged(shop: Shop) -> Path:
    """The folder of the latest model."""
    found = shop.client.search_model_versions("name='ragwright-handmade-towers'")
    return Path(max(found, key=lambda version: int(version.version)).source.removeprefix("file://"))


def load(folder: Path) -> Any:
    """The model, as MLflow loads it."""
    with undisturbed():
        import mlflow.pyfunc
    return mlflow.pyfunc.load_model(str(folder))


def manifest(shop: Shop) -> str:
    return (shop.export / "manifest.json").read_text(encoding="utf-8")


def test_a_difference_without_bounds_has_none_in_the_registry(shop: Shop) -> None:
    content = json.loads(manifest(shop))
    content["difference"] |= {"low": None, "high": None}
    (shop.export / "manifest.json").write_text(json.dumps(content))
    shop.register()
    tags = shop.client.get_model_version_by_alias("ragwright-handmade-towers", "champion").tags
    assert {name for name in tags if "difference" in name} == {"ragwright.test.difference.mean"}


def test_the_same_export_is_registered_once(shop: Shop) -> None:
    first = shop.register("underpowered")
    assert first.aliases == ("challenger",)
    aliases = shop.client.get_registered_model(first.name).aliases
    assert {name: int(version) for name, version in aliases.items()} == {"challenger": 1}
    shop.export = shop.exported()
    second = shop.register()
    assert (second.model_version, second.prompts) == (first.model_version, first.prompts)
    assert set(shop.client.get_registered_model(first.name).aliases) == {"challenger", "champion"}


def test_another_winner_is_a_new_version_and_the_champion_stays(shop: Shop) -> None:
    first = shop.register()
    shop.export = shop.exported(max_tokens=9)
    second = shop.register("not shown better")
    assert (first.model_version, second.model_version) == (1, 2)
    aliases = shop.client.get_registered_model(first.name).aliases
    assert {name: int(version) for name, version in aliases.items()} == {"challenger": 2, "champion": 1}
    prompt_name, _ = first.prompts["generate"]
    assert shop.client.load_prompt(f"prompts:/{prompt_name}@champion").version == 1
    assert shop.client.load_prompt(f"prompts:/{prompt_name}@challenger").version == 2


def test_the_model_answers_without_a_pickle(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = shop.register()
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    folder = logged(shop)
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".pickle")]
    # The documents go, so that what answers is what the model holds.
    (shop.studied.dataset.path / "corpus").rename(tmp_path / "gone")
    model = load(folder)
    questions = pd.DataFrame({"question": ["When was the tower test 7 built?", "When was the tower train 2 built?"]})
    first, second = model.predict(questions)
    assert first["answer"] == "1807"
    assert [source["doc_id"] for source in first["sources"] + second["sources"]] == ["test-7.md", "train-2.md"]
    assert first["sources"][0]["text"].startswith("The tower test 7 was built in 1807.")
    assert model.metadata.get_input_schema().input_names() == ["question"]
    assert found.model_version == 1


def test_a_persons_own_program_comes_along(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, reference in (("towers_alone.py", "towers_alone:build"), ("towers/own.py", "towers.own:build")):
        own = tmp_path / "own" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text("from programs.rag import RAG\n\n\ndef build(search):\n    return RAG(search)\n")
        (tmp_path / "own" / "towers" / "__init__.py").parent.mkdir(exist_ok=True)
        (tmp_path / "own" / "towers" / "__init__.py").write_text("")
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / "own")
            patch.syspath_prepend(str(tmp_path / "own"))
            pipeline = (shop.export / "pipeline.yaml").read_text()
            (shop.export / "pipeline.yaml").write_text(re.sub("program: .*", f"program: {reference}", pipeline))
            shop.register()
        own.unlink()
        for module in [module for module in sys.modules if module.startswith("towers")]:
            del sys.modules[module]
        folder = logged(shop)
        found = load(folder).predict(pd.DataFrame({"question": ["When was the tower test 7 built?"]}))
        assert found[0]["answer"] == "1807"


def test_a_package_without_init_comes_along_and_hidden_files_do_not(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "own" / "hills"
    package.mkdir(parents=True)
    (package / "own.py").write_text("from programs.rag import RAG\n\n\ndef build(search):\n    return RAG(search)\n")
    (package / ".env").write_text(CANARY)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    pipeline = (shop.export / "pipeline.yaml").read_text()
    (shop.export / "pipeline.yaml").write_text(re.sub("program: .*", "program: hills.own:build", pipeline))
    shop.register()
    names = {file.relative_to(logged(shop)).as_posix() for file in logged(shop).rglob("*") if file.is_file()}
    assert "code/hills/own.py" in names
    assert not any(".env" in name for name in names)


def test_an_lm_that_comes_back_is_asked_again(shop: Shop) -> None:
    shop.register()
    model = load(logged(shop))
    questions = pd.DataFrame({"question": ["When was the tower test 7 built?"]})
    shop.server.key = "another"
    for _ in range(2):
        with pytest.raises(RagwrightError, match="the key was refused"):
            model.predict(questions)
    shop.server.key = CANARY
    assert model.predict(questions)[0]["answer"] == "1807"


def test_a_model_names_no_place_of_this_machine(shop: Shop) -> None:
    shop.register()
    for file in (logged(shop) / "artifacts").rglob("*"):
        assert file.is_dir() or str(shop.runs.parent).encode() not in file.read_bytes(), file


def test_a_corpus_that_has_changed_since_is_no_models(shop: Shop) -> None:
    (shop.studied.dataset.path / "corpus" / "new.md").write_text("New.")
    with pytest.raises(RagwrightError, match="the corpus has changed since the export was made"):
        shop.register()
    assert not shop.client.search_model_versions("name='ragwright-handmade-towers'")


def test_a_prompt_too_long_for_the_registry_says_where_it_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize.exporting.registry, "LONGEST", 10)
    name, version = shop.register().prompts["generate"]
    assert "see messages.json in the artifacts" in shop.client.load_prompt(name, version).template


def test_the_model_brings_what_it_needs(shop: Shop) -> None:
    shop.register()
    folder = logged(shop)
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {"model.py", "artifacts/corpus/corpus.jsonl", "artifacts/export/program.json", "input_example.json"} <= names
    assert "uv.lock" not in names
    requirements = (folder / "requirements.txt").read_text().splitlines()
    [wheel] = [line for line in requirements if line.endswith(".whl")]
    assert (folder / wheel).is_file()
    assert any(line.startswith("dspy==") for line in requirements)


def test_no_key_is_anywhere(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    shop.register()
    assert CANARY in os.environ["TINY_KEY"]
    searched = 0
    for file in shop.runs.rglob("*"):
        if file.is_file():
            searched += 1
            assert CANARY.encode() not in file.read_bytes(), file
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    assert not any(CANARY.encode() in wheel.read(name) for name in wheel.namelist())
    assert searched > 20
    assert capfd.readouterr() == ("", "")


def test_names_are_what_mlflow_takes() -> None:
    # No colon, slash or dot.
    assert registered_name("my data/set", "a.b") == "ragwright-my-data-set-a-b"
    assert registered_name("Müller", "a") == "ragwright-Muller-a"
    names = [registered_name(dataset, "a") for dataset in ("手册", "指南", "手册 2", "my 手册")]
    assert len(set(names)) == 4 and all(re.fullmatch(r"[\w-]+", name, re.ASCII) for name in names)


def test_the_wheel_is_whole_and_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    wheel = build_wheel(tmp_path)
    assert wheel.read_bytes() == build_wheel(tmp_path / "again").read_bytes()
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        record = file.read(next(name for name in names if name.endswith("/RECORD"))).decode()
    assert {"programs/rag.py", "optimize/cli/main.py", "optimize/compiling/__init__.py"} <= set(names)
    assert not any("__pycache__" in name or "/." in name for name in names)
    assert len(record.splitlines()) == len(names)


def test_requirements_are_pinned() -> None:
    plain = pinned_requirements()
    assert all("==" in line for line in plain)
    assert not any(line.startswith("xllamacpp") for line in plain)
    assert any(line.startswith("xllamacpp") for line in pinned_requirements(frozenset({"local"})))
