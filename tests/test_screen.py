from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimize.cli.main import app
from optimize.data.dataset import Dataset, load_dataset
from optimize.data.example import Example, Fact, Place
from optimize.measures.table import measure_retrieval, parse_measure
from optimize.reporting.screen import as_json, write_screen
from optimize.runs.progress import Silence
from optimize.screening import bench as retrieval_bench
from optimize.screening.bench import RetrievalBench
from optimize.screening.explain import Stage, explain
from optimize.screening.screen import OTHER_MEASURES, Screen, Screened
from optimize.settings.study import Baseline, ScreenConfig, Space, StudyConfig
from programs.config import PipelineConfig
from programs.corpus import Corpus
from programs.errors import RagwrightError
from programs.search import context_tokens, open_search
from programs.types import Document, Span

SPACE: dict[str, Any] = {
    "splitter": ["recursive", "sentence"],
    "chunk_size": [32, 64],
    "retriever": ["dense", "sparse", "hybrid"],
    "reranker": ["none", "lexical"],
    "retrieve_k": [8],
    "top_k": [1, 2, 3],
}


@pytest.fixture(scope="module")
def dataset(villages: Path) -> Dataset:
    return load_dataset(villages)


def study(**changes: Any) -> StudyConfig:
    settings: dict[str, Any] = {
        "name": "villages",
        "dataset": "villages",
        "space": Space(**SPACE),
        "baseline": Baseline(chunk_size=64, top_k=1),
        "screen": ScreenConfig(configurations=12, shortlist=4),
    }
    return StudyConfig(**settings | changes)


def screen(dataset: Dataset, runs: Path, config: StudyConfig | None = None) -> Screened:
    return Screen(config or study(), dataset, runs, Silence()).run()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def screened(dataset: Dataset, runs: Path) -> Screened:
    return screen(dataset, runs)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"retriever": "sparse", "reranker": "lexical", "top_k": 2},
        {"retriever": "hybrid", "reranker": "mmr", "top_k": 3, "context_prefix": "title"},
        {"retriever": "weighted", "dense_weight": 0.3, "cutoff": 0.4, "top_k": 3, "chunk_overlap": 0.25},
        {"retriever": "hybrid", "reranker": "maxsim", "cutoff": 0.2, "expansion": "neighbours", "top_k": 2},
        {"splitter": "whole", "retriever": "sparse"},
        {"expansion": "parent", "top_k": 2, "splitter": "sentence"},
    ],
)
def test_a_batch_is_worth_what_its_questions_are_worth_to_a_program(
    dataset: Dataset, runs: Path, changes: dict[str, Any]
) -> None:
    config = PipelineConfig(**{"chunk_size": 32, "retrieve_k": 8, "top_k": 1, **changes})
    names = ["span_recall", "span_precision", "iou", "gold_in_context", "nDCG", "RR", "AP"]
    found = RetrievalBench(dataset.corpus, runs, dataset.validation, list(map(parse_measure, names)), deepest=8).score(
        config
    )
    search = open_search(runs, dataset.corpus, config)
    for example, values, tokens in zip(dataset.validation, found.values, found.tokens, strict=True):
        passages = search(example.question)
        assert dict(zip(names, values, strict=True)) == pytest.approx(
            {name: value for name, value in measure_retrieval(example, passages).items() if name in names}
        )
        assert tokens == context_tokens(passages)
    assert found.latency_ms > 0


def test_a_screen_says_what_is_best_within_the_baselines_context(screened: Screened) -> None:
    best = [point for point in screened.points if point.tokens <= screened.baseline.tokens]
    assert screened.max_tokens == screened.baseline.tokens
    assert screened.pick.quality == max(point.quality for point in best) >= screened.baseline.quality
    assert len(screened.points) in (12, 13) and screened.pick in screened.front
    for one in screened.front:
        assert not any(
            other.quality > one.quality and other.tokens < one.tokens and other.latency_ms < one.latency_ms / 2
            for other in screened.points
        )
    assert screened.check is not None
    assert screened.check.difference.mean == pytest.approx(
        screened.check.pick.quality - screened.check.baseline.quality, abs=1e-5
    )
    assert set(screened.pick.measures) == set(OTHER_MEASURES)


def test_each_setting_is_changed_by_itself(screened: Screened) -> None:
    for worth in screened.worth:
        assert worth.value in SPACE[worth.name]
        if worth.difference is not None:
            assert worth.difference.low <= worth.difference.mean <= worth.difference.high
    assert {worth.name for worth in screened.worth} == {name for name, values in SPACE.items() if len(values) > 1}


def test_the_shortlist_are_points_of_the_space_the_pick_first(screened: Screened) -> None:
    configs = [PipelineConfig.from_params(params).canonical() for params in screened.shortlist]
    assert configs[0] == screened.pick.config and 1 <= len(configs) <= 4
    assert len({config.fingerprint() for config in configs}) == len(configs)
    for params in screened.shortlist:
        assert all(params[name] in values for name, values in SPACE.items())


def test_nothing_is_scored_twice(
    dataset: Dataset, runs: Path, screened: Screened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: RetrievalBench, config: PipelineConfig) -> Any:
        raise AssertionError("scored before")

    monkeypatch.setattr(retrieval_bench.RetrievalBench, "score", refuse)
    again = screen(dataset, runs)
    assert replace(again, seconds=0.0) == replace(screened, seconds=0.0)


def test_a_screen_goes_on_after_a_kill(dataset: Dataset, tmp_path: Path) -> None:
    first = screen(dataset, tmp_path)
    file = first.folder / "validation.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:5]) + lines[5][:40])
    again = screen(dataset, tmp_path)
    assert [p.config for p in again.points] == [p.config for p in first.points]
    assert [p.scores for p in again.points] == [p.scores for p in first.points]
    assert again.shortlist == first.shortlist


def test_small_spaces_are_gone_through_whole(dataset: Dataset, runs: Path) -> None:
    space = Space(
        chunk_size=[32, 64], retriever=["dense", "sparse"], reranker=["none"], retrieve_k=[5, 8], top_k=[1, 2]
    )
    found = screen(dataset, runs, study(space=space, screen=ScreenConfig(configurations=50)))
    # Without a reranker `retrieve_k` has no effect, and the baseline is one of them.
    assert len(found.points) == 8
    assert {worth.name for worth in found.worth if worth.difference is None} == {"retrieve_k"}


def test_what_needs_an_lm_is_left_and_named(dataset: Dataset, runs: Path) -> None:
    space = Space(
        **SPACE | {"reranker": ["none", "llm"], "context_prefix": ["summary"], "prompt_format": ["compact", "chat"]}
    )
    found = screen(dataset, runs, study(space=space, program="hyde"))
    assert {line.split(":")[0] for line in found.left} == {
        "prompt_format",
        "reranker llm",
        "context_prefix summary",
        "program hyde",
    }
    assert {point.config.reranker for point in found.points} == {"none"}


def test_questions_without_evidence_are_not_scored_and_counted(dataset: Dataset, runs: Path) -> None:
    bare = tuple(replace(example, evidence=()) for example in dataset.validation[:5])
    found = screen(replace(dataset, validation=bare + dataset.validation[5:]), runs)
    assert found.unscored == 5 and found.scored == len(dataset.validation) - 5 == len(found.pick.scores)
    with pytest.raises(RagwrightError, match="no validation question has evidence"):
        screen(replace(dataset, validation=bare), runs)


def test_a_limit_on_context_tokens_is_kept(dataset: Dataset, runs: Path) -> None:
    tight = screen(dataset, runs, study(screen=ScreenConfig(configurations=12, max_context_tokens=40)))
    assert tight.pick.tokens <= 40


def test_a_screen_is_written_for_people_and_machines(screened: Screened) -> None:
    page = write_screen(screened, "villages", 0.05)
    assert "Retrieval screen of villages" in page.read_text() and "<svg" in page.read_text()
    content = json.loads((page.parent / "screen.json").read_text())
    assert content == json.loads(json.dumps(as_json(screened)))
    assert "| setting | instead |" in (page.parent / "screen.md").read_text()
    assert (page.parent / "journal.log").stat().st_size > 0


def test_the_journal_opens_as_an_optuna_study(screened: Screened) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(screened.folder / "journal.log")))
    kept = optuna.get_all_study_names(storage)[0]
    trials = optuna.load_study(storage=storage, study_name=kept).trials
    best = max(trial.values[0] for trial in trials)
    assert best == pytest.approx(max(point.quality for point in screened.points[1:]))


def test_the_commands_screen_and_explain(villages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    content = {"name": "villages", "dataset": str(villages), "space": SPACE, "screen": {"configurations": 6}}
    file.write_text(json.dumps(content))
    command = ["screen", str(file), "--runs", str(tmp_path / "runs")]
    app([*command, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert len(found["points"]) in (6, 7) and found["measure"] == "span_recall"
    app([*command, "--explain", "baseline", "--json"], standalone_mode=False)
    lost = json.loads(capsys.readouterr().out)
    assert sum(lost["lost"].values()) == len(lost["losses"]) and lost["facts"] == found["questions"]
    app([*command, "--explain", "pick"], standalone_mode=False)
    assert "lost by" in capsys.readouterr().out
    app(command, standalone_mode=False)
    assert "The front" in capsys.readouterr().out


def test_a_screen_imports_neither_an_lm_nor_a_store(villages: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    content = {"name": "villages", "dataset": str(villages), "space": SPACE, "screen": {"configurations": 4}}
    file.write_text(json.dumps(content))
    code = f"""
import sys
from optimize.cli.main import app
app(["screen", {str(file)!r}, "--runs", {str(tmp_path / "runs")!r}, "--json"], standalone_mode=False)
print([name for name in ("dspy", "litellm", "chromadb", "mlflow", "datasets") if name in sys.modules], file=sys.stderr)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stderr.splitlines()[-1] == "[]"


# Long enough that 16 tokens cut it.
CUT = "The chapel bell of Marrow, which was cast by four brothers from Hale in the winter of 1871, weighs two tons"
HIDDEN = "Zephyr quartz"


def lost_stages(config: PipelineConfig, runs: Path, quotes: Sequence[str], question: str) -> list[Stage]:
    documents = [
        Document("a", f"{CUT} and more."),
        Document("b", HIDDEN),
        *(Document(f"c{n}", f"The harbour of Marrow, part {n}, harbour.") for n in range(4)),
    ]
    corpus = Corpus.from_documents(documents)

    def fact(quote: str) -> Fact:
        document = next(document for document in documents if quote in document.text)
        start = document.text.index(quote)
        return (Place(Span(document.id, start, start + len(quote)), quote),)

    example = Example("q", question, ("x",), tuple(map(fact, quotes)))
    bench = RetrievalBench(corpus, runs, [example], [], deepest=8)
    return [loss.stage for loss in explain(bench, [example], config, 0).losses]


@pytest.mark.parametrize(
    ("changes", "quote", "question", "stages"),
    [
        ({"chunk_size": 16, "top_k": 1}, CUT, "How heavy is the bell?", ["splitter"]),
        ({"top_k": 1}, HIDDEN, "harbour of Marrow", ["retriever"]),
        ({"top_k": 2, "retrieve_k": 4, "reranker": "lexical"}, "part 3", "harbour of Marrow", ["top_k"]),
        ({"top_k": 8}, "part 3", "harbour of Marrow", []),
        ({"top_k": 4, "cutoff": 0.9}, "part 0", "chapel bell brothers harbour", ["cutoff"]),
    ],
)
def test_a_loss_is_laid_at_the_stage_that_lost_it(
    tmp_path: Path, changes: dict[str, Any], quote: str, question: str, stages: list[Stage]
) -> None:
    config = PipelineConfig(**{"chunk_size": 64, "retriever": "sparse", "retrieve_k": 8, **changes})
    assert lost_stages(config, tmp_path, [quote], question) == stages


def test_a_reranker_is_blamed_for_what_it_puts_lower(tmp_path: Path) -> None:
    question = 9 * "harbour " + "chapel"
    sparse = PipelineConfig(chunk_size=64, retriever="sparse", retrieve_k=8, top_k=1)
    first = lost_stages(sparse, tmp_path, ["part 0"], question)
    reranked = lost_stages(replace(sparse, reranker="lexical"), tmp_path, ["part 0"], question)
    assert (first, reranked) == ([], ["reranker"])


def test_quality_is_a_mean_over_questions(screened: Screened) -> None:
    for point in screened.points:
        assert point.quality == pytest.approx(float(np.mean(point.scores)), abs=1e-5)
