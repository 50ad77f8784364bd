from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from optimize.settings.choices import PROMPT_FORMATS
from optimize.settings.study import Baseline, Range, Space, StudyConfig, dump_study, load_study, read_study_file
from programs.config import PipelineConfig
from programs.errors import ProblemsError, RagwrightError
from programs.expansion import EXPANSIONS
from programs.prefix import PREFIXES
from programs.retrieval import RETRIEVERS
from programs.splitting import SPLITTERS

HEAD = "name: small\ndataset: datasets/small\n"


def write(path: Path, text: str) -> Path:
    file = path / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def load(path: Path, text: str) -> StudyConfig:
    return load_study(write(path, HEAD + text))


def problems(path: Path, text: str) -> list[str]:
    file = write(path, text)
    with pytest.raises(ProblemsError) as error:
        load_study(file)
    return [str(problem).removeprefix(f"{file}:") for problem in error.value.problems]


def only_problem(path: Path, text: str) -> str:
    (problem,) = problems(path, HEAD + text)
    return problem


def test_two_lines_make_a_study(tmp_path: Path) -> None:
    study = load(tmp_path, "")
    assert (study.name, study.program, study.lm) == ("small", "rag", "local")
    assert study.baseline == Baseline()
    assert study.optimizer_params() == {"labeled_fewshot": {}, "bootstrap_fewshot": {}}


def test_everything_can_be_said(tmp_path: Path) -> None:
    study = load(
        tmp_path,
        """\
lm: {model: openai/some-model, api_base: http://here}
space:
  splitter: [sentence, markdown]
  chunk_size: {low: 32, high: 512, log: true}
  chunk_overlap: [0, 0.25]
  embedder: [wordllama, openai/text-embedding-3-small]
  top_k: {low: 1, high: 8, step: 2}
optimizers:
  labeled_fewshot:
  bootstrap_fewshot: {attempts: 4}
budget: {lm_calls: 100, usd: 1, minutes: 0.5}
""",
    )
    assert study.space.chunk_size == Range(low=32, high=512, log=True)
    assert study.space.chunk_overlap == [0.0, 0.25]
    assert study.optimizer_params() == {"labeled_fewshot": {}, "bootstrap_fewshot": {"attempts": 4}}
    assert study.budget.usd == 1.0
    assert load_study(write(tmp_path, dump_study(study))) == study
    assert StudyConfig.model_validate(study.model_dump()) == study


def test_five_mistakes_are_named_at_once_with_line_and_key(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """\
# A study.
name: small

dataset: datasets/small
space:
  splitter: [recursive, foo]
  top_k: {low: 0, high: 8}
  chunk_size:
    - 128
    - 9
sampler: magic
budget: {lm_calls: 600, euros: 3}
""",
    )
    assert found == [
        "6: space.splitter.1: unknown splitter 'foo'; choices: fixed, recursive, sentence, markdown, semantic, whole",
        "7: space.top_k: 0 to 8 is out of range; from 1 to 200 is possible",
        "10: space.chunk_size.1: input should be greater than or equal to 16, got 9",
        "11: sampler: input should be 'tpe', 'random', 'grid', 'gp' or 'nsga2', got 'magic'",
        "12: budget.euros: unknown setting (known here: lm_calls, tokens, usd, minutes)",
    ]


def test_missing_settings_are_all_named(tmp_path: Path) -> None:
    assert problems(tmp_path, "seed: 1\n") == [
        "1: name: missing (it has no default)",
        "1: dataset: missing (it has no default)",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense: 1", "3: nonsense: unknown setting (known here: name, dataset, program, lm,"),
        ("space: {top_k: {low: 1, high: 3, stop: 1}}", "3: space.top_k.stop: unknown setting (known here: low, high,"),
        ("space: {top_k: {low: 1}}", "3: space.top_k.high: missing"),
        ("space: {top_k: {low: 5, high: 3}}", "3: space.top_k: low (5) is above high (3)"),
        ("space: {top_k: {low: 1, high: 8, step: 2, log: true}}", "3: space.top_k: a log range needs low of 1 or more"),
        ("space: {chunk_size: {low: 1, high: 512}}", "3: space.chunk_size: 1 to 512 is out of range; from 16 to 8192"),
        ("space: {retrieve_k: [0]}", "3: space.retrieve_k.0: input should be greater than or equal to 1, got 0"),
        ("space: {chunk_overlap: [0.95]}", "3: space.chunk_overlap.0: input should be less than or equal to 0.9"),
        ("space: {chunk_overlap: [.nan]}", "3: space.chunk_overlap.0: input should be"),
        ("space: {chunk_size: []}", "3: space.chunk_size: list should have at least 1 item"),
        ("space: {top_k: [3, 3]}", "3: space.top_k: a value is listed twice in [3, 3]"),
        ("space: {retriever: dense}", "3: space.retriever: input should be a valid list, got 'dense'"),
        ("space: {top_k: 3}", "3: space.top_k: input should be a valid list, got 3"),
        ("space: 7", "3: space: must be a mapping of settings, got 7"),
        ("lm: 7", "3: lm: input should be a valid string, got 7"),
        ("optimizers: [7]", "3: optimizers.0: input should be a valid string, got 7"),
        ("optimizers: {x: 7}", "3: optimizers.x: input should be a valid dictionary, got 7"),
        ("seed: yes", "3: seed: input should be a valid integer, got True"),
        ("smallest_effect: 1", "3: smallest_effect: input should be less than 1, got 1"),
        ("budget: {usd: 0}", "3: budget.usd: input should be greater than 0, got 0"),
        ("examples: {test: 2}", "3: examples.test: input should be greater than or equal to 4, got 2"),
        ("seed: 1\nseed: 2", "4: seed: given twice (keep one)"),
        ("budget: {usd: 2,\n usd: 3}", "4: budget.usd: given twice (keep one)"),
        ("5: 6", "3: 5: "),
    ],
)
def test_single_mistake_is_said_once(tmp_path: Path, text: str, problem: str) -> None:
    assert only_problem(tmp_path, text).startswith(problem)


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "../up", "x" * 62])
def test_name_can_name_a_folder(tmp_path: Path, name: str) -> None:
    assert problems(tmp_path, f"name: {name!r}\ndataset: d\n")[0].startswith("1: name: ")


@pytest.mark.parametrize(
    ("setting", "choices"),
    [
        ("splitter", SPLITTERS),
        ("retriever", RETRIEVERS),
        ("context_prefix", PREFIXES),
        ("expansion", EXPANSIONS),
        ("prompt_format", PROMPT_FORMATS),
    ],
)
def test_names_come_from_the_tables(tmp_path: Path, setting: str, choices: dict[str, Any]) -> None:
    study = load(tmp_path, f"space: {{{setting}: [{', '.join(choices)}]}}")
    assert getattr(study.space, setting) == list(choices)
    expected = f"unknown {setting} 'foo'; choices: {', '.join(choices)}"
    assert only_problem(tmp_path, f"space: {{{setting}: [foo]}}") == f"3: space.{setting}.0: {expected}"
    assert only_problem(tmp_path, f"baseline:\n  {setting}: foo") == f"4: baseline.{setting}: {expected}"


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("reranker", "foo", "'foo' is unknown; choose none, lexical, mmr"),
        ("embedder", "foo", "'foo' is unknown; choose wordllama"),
        ("filter", "foo", "'foo' is not `key OPERATOR value`"),
        ("dense_weight", 1.5, "input should be less than or equal to 1"),
        ("cutoff", 1.0, "input should be less than 1"),
    ],
)
def test_what_a_setting_cannot_be(tmp_path: Path, setting: str, value: Any, expected: str) -> None:
    assert only_problem(tmp_path, f"space: {{{setting}: [{value}]}}").startswith(f"3: space.{setting}.0: {expected}")
    assert only_problem(tmp_path, f"baseline:\n  {setting}: {value}").startswith(f"4: baseline.{setting}: {expected}")


def test_a_winners_settings_can_be_the_next_baseline(tmp_path: Path) -> None:
    winner = PipelineConfig(retriever="sparse", reranker="lexical").canonical()
    text = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in winner.as_params().items())
    study = load(tmp_path, f"baseline:\n{text}")
    assert PipelineConfig(**study.baseline.model_dump()).canonical() == winner
    problem = only_problem(tmp_path, "baseline: {embedder: none, retriever: hybrid}")
    assert problem == "3: baseline: embedder none makes no vectors, and retriever hybrid with reranker none needs them"
    assert only_problem(tmp_path, "space: {embedder: [none]}").startswith("3: space.embedder.0: 'none' is unknown")


def test_the_screen_measures_what_follows_from_passages(tmp_path: Path) -> None:
    assert load(tmp_path, "screen: {measure: nDCG@10, configurations: 9}").screen.measure == "nDCG@10"
    for name, expected in (("foo", "unknown measure 'foo'"), ("latency_ms", "'latency_ms' depends on more than")):
        assert only_problem(tmp_path, f"screen: {{measure: {name}}}").startswith(f"3: screen.measure: {expected}")


def test_prompt_formats_are_those_of_the_table() -> None:
    from programs.prompt_format import FORMATS

    assert tuple(FORMATS) == PROMPT_FORMATS


def test_unknown_embedder_is_refused(tmp_path: Path) -> None:
    assert "'wordlama' is unknown; choose wordllama" in only_problem(tmp_path, "space: {embedder: [wordlama]}")


def test_defaults_are_valid_and_named_as_the_pipeline_names_them() -> None:
    fields = set(PipelineConfig().as_params())
    assert set(Space.model_fields) == set(Baseline.model_fields) == fields
    assert Space.model_validate(Space().model_dump()) == Space()
    assert PipelineConfig.from_params(Baseline().model_dump()) == PipelineConfig()
    assert set(get_args(StudyConfig.model_fields["sampler"].annotation)) == {"tpe", "random", "grid", "gp", "nsga2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a study file is a mapping of settings"),
        ("- a\n- b\n", "a study file is a mapping of settings"),
        ("name: a\nspace: [1\nseed: 2\n", r"study\.yaml:3: not YAML"),
        ("name: 2024-13-45\n", "not YAML: month must be in 1..12"),
    ],
)
def test_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RagwrightError, match=message) as error:
        load_study(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RagwrightError, match=r"no such study file; `ragwright init`"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(RagwrightError, match="a folder, not a study file"):
        load_study(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4")
    with pytest.raises(RagwrightError, match="not UTF-8 at byte 6"):
        load_study(tmp_path / "latin.yaml")


def test_place_of_a_setting_that_is_left_out_is_the_section_that_lacks_it(tmp_path: Path) -> None:
    file = write(tmp_path, HEAD + "space:\n  top_k: [1]\n")
    study = read_study_file(file)
    assert study.place("space", "top_k", 0) == f"{file}:4: space.top_k.0"
    assert study.place("space", "splitter") == f"{file}:3: space.splitter"
    assert study.place("budget", "usd") == f"{file}:1: budget.usd"
    assert study.place() == f"{file}:1"


def test_reading_a_study_takes_no_heavy_library_along(tmp_path: Path) -> None:
    file = write(tmp_path, HEAD + "space: {splitter: [sentence], retriever: [dense], prompt_format: [chat]}\n")
    script = (
        "import sys, pathlib; from optimize.settings.study import load_study; load_study(pathlib.Path(sys.argv[1]));"
        "print([m for m in ('dspy', 'chromadb', 'mlflow', 'optuna', 'datasets', 'litellm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
