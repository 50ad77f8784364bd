"""The study file: what a person writes, validated whole before anything costs money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from optimize.data.validation import problems_of
from optimize.settings.choices import (
    EmbedderName,
    EmbedderNameOrNone,
    ExpansionName,
    FilterText,
    MeasureName,
    PrefixName,
    PromptFormatName,
    RerankerName,
    RetrieverName,
    SplitterName,
)
from optimize.settings.yaml_file import line_of, read_yaml, repeated_keys
from programs.addresses import without_credentials
from programs.config import PipelineConfig
from programs.errors import Problem, ProblemsError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(_Strict):
    """Numbers from `low` to `high`, both included."""

    low: int
    high: int
    step: int = Field(default=1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        if self.log and (self.low < 1 or self.step != 1):
            raise ValueError("a log range needs low of 1 or more and no step")
        return self


SIZES, COUNTS = (16, 8192), (1, 200)
ChunkSize = Annotated[int, Field(ge=SIZES[0], le=SIZES[1])]
Count = Annotated[int, Field(ge=COUNTS[0], le=COUNTS[1])]
Overlap = Annotated[float, Field(ge=0.0, le=0.9)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(gt=0.0)]
Cutoff = Annotated[float, Field(ge=0.0, lt=1.0)]


def _within(low: int, high: int) -> AfterValidator:
    def check(numbers: Range) -> Range:
        if numbers.low < low or numbers.high > high:
            raise ValueError(f"{numbers.low} to {numbers.high} is out of range; from {low} to {high} is possible")
        return numbers

    return AfterValidator(check)


def _mapping_or(other: str) -> Discriminator:
    """Which branch of a union a value is meant for, so that its mistakes are reported once."""
    return Discriminator(lambda value: "[mapping]" if isinstance(value, Mapping | Range) else other)


Sizes = Annotated[
    Annotated[list[ChunkSize], Field(min_length=1), Tag("[list]")]
    | Annotated[Range, _within(*SIZES), Tag("[mapping]")],
    _mapping_or("[list]"),
]
Counts = Annotated[
    Annotated[list[Count], Field(min_length=1), Tag("[list]")] | Annotated[Range, _within(*COUNTS), Tag("[mapping]")],
    _mapping_or("[list]"),
]


def _mapped(params: Any) -> Any:
    """`mipro:` with nothing after it asks for the optimizer as it is; a list is the steps of `chain`."""
    if params is None:
        return {}
    return {"steps": params} if isinstance(params, list) else params


Params = Annotated[dict[str, Any], BeforeValidator(_mapped)]
Optimizers = Annotated[
    Annotated[list[str], Tag("[list]")] | Annotated[dict[str, Params], Tag("[mapping]")],
    _mapping_or("[list]"),
]
LM = Annotated[Annotated[str, Tag("[text]")] | Annotated[dict[str, Any], Tag("[mapping]")], _mapping_or("[text]")]
MetricSpec = Annotated[
    Annotated[str, Tag("[text]")] | Annotated[dict[str, Weight], Tag("[mapping]")], _mapping_or("[text]")
]


class Space(_Strict):
    """What each setting may be; what is left out has a few usual values."""

    splitter: list[SplitterName] = Field(default=["recursive"], min_length=1)
    chunk_size: Sizes = [128, 256, 512]
    chunk_overlap: list[Overlap] = Field(default=[0.0], min_length=1)
    context_prefix: list[PrefixName] = Field(default=["none"], min_length=1)
    embedder: list[EmbedderName] = Field(default=["wordllama"], min_length=1)
    retriever: list[RetrieverName] = Field(default=["dense", "sparse", "hybrid"], min_length=1)
    dense_weight: list[Share] = Field(default=[0.5], min_length=1)
    filter: list[FilterText] = Field(default=[""], min_length=1)
    retrieve_k: Counts = [20]
    reranker: list[RerankerName] = Field(default=["none", "lexical"], min_length=1)
    cutoff: list[Cutoff] = Field(default=[0.0], min_length=1)
    top_k: Counts = [1, 2, 3, 5]
    expansion: list[ExpansionName] = Field(default=["none"], min_length=1)
    prompt_format: list[PromptFormatName] = Field(default=["compact"], min_length=1)

    @field_validator("*")
    @classmethod
    def _distinct(cls, values: Any) -> Any:
        if isinstance(values, list) and len(set(values)) < len(values):
            raise ValueError(f"a value is listed twice in {values!r}")
        return values


class Baseline(_Strict):
    """What the winner is compared with: by default what people usually start with."""

    splitter: SplitterName = "recursive"
    chunk_size: ChunkSize = 256
    chunk_overlap: Overlap = 0.0
    context_prefix: PrefixName = "none"
    embedder: EmbedderNameOrNone = "wordllama"
    retriever: RetrieverName = "dense"
    dense_weight: Share = 0.5
    filter: FilterText = ""
    retrieve_k: Count = 20
    reranker: RerankerName = "none"
    cutoff: Cutoff = 0.0
    top_k: Count = 3
    expansion: ExpansionName = "none"
    prompt_format: PromptFormatName = "chat"

    @model_validator(mode="after")
    def _vectors_where_needed(self) -> Self:
        """A winner's settings can stand here as its report says them, where words alone are searched."""
        if self.embedder == "none" and PipelineConfig(**self.model_dump()).needs_vectors:
            who = f"retriever {self.retriever} with reranker {self.reranker}"
            raise ValueError(f"embedder none makes no vectors, and {who} needs them")
        return self


class BudgetConfig(_Strict):
    """Limits on everything together, the verdict included; the first that is reached ends the search."""

    lm_calls: int = Field(default=600, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    usd: float | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)


class Limits(_Strict):
    """How many examples of each kind are used; what is left out follows from the budget."""

    train: int | None = Field(default=None, ge=1)
    search: int | None = Field(default=None, ge=4)
    confirm: int | None = Field(default=None, ge=4)
    test: int | None = Field(default=None, ge=4)


class ScreenConfig(_Strict):
    """How retrieval is screened before the search, without the LM."""

    measure: MeasureName = "span_recall"
    configurations: int = Field(default=60, ge=2, le=5000)
    shortlist: int = Field(default=6, ge=1, le=50)
    max_context_tokens: int | None = Field(default=None, ge=1)


class StudyConfig(_Strict):
    """A whole study file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")
    dataset: str
    program: str = "rag"
    lm: LM = "local"
    reflection_lm: LM | None = None
    judge_lm: LM | None = None
    metric: MetricSpec = "token_f1"
    minimize: list[Literal["context_tokens", "prompt_tokens", "usd", "latency_s"]] = []
    tolerance: float = Field(default=0.02, ge=0.0, lt=1.0)
    guards: dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]] = {}
    repeats: int = Field(default=1, ge=1, le=20)
    space: Space = Space()
    baseline: Baseline = Baseline()
    screen: ScreenConfig = ScreenConfig()
    optimizers: Optimizers = ["labeled_fewshot", "bootstrap_fewshot"]
    sampler: Literal["tpe", "random", "grid", "gp", "nsga2"] = "tpe"
    trials: int | None = Field(default=None, ge=1)
    examples: Limits = Limits()
    finalists: int = Field(default=3, ge=1, le=10)
    smallest_effect: float = Field(default=0.05, gt=0, lt=1)
    budget: BudgetConfig = BudgetConfig()
    seed: int = 0

    def optimizer_params(self) -> dict[str, dict[str, Any]]:
        """Optimizer name -> its parameters, however the file gave them."""
        return self.optimizers if isinstance(self.optimizers, dict) else {name: {} for name in self.optimizers}


@dataclass(frozen=True)
class StudyFile:
    """A study file as it was written.

    Attributes:
        path: The file.
        content: What it says, not yet validated.
        node: The same as YAML nodes, which know their lines.
    """

    path: Path
    content: Mapping[str, Any]
    node: yaml.MappingNode

    def place(self, *keys: str | int) -> str:
        """`file:line: key.path` of a setting, or of the deepest part of it that the file has."""
        where = f"{self.path}:{line_of(self.node, list(keys))}"
        return f"{where}: {'.'.join(map(str, keys))}" if keys else where

    def validate(self) -> StudyConfig:
        """The study.

        Raises:
            ProblemsError: Every problem of form, each with its line and key.
        """
        problems = [
            Problem(f"{self.path}:{line}: {key}", "given twice", "keep one") for line, key in repeated_keys(self.node)
        ]
        try:
            config = StudyConfig.model_validate(self.content)
        except ValidationError as error:
            problems += problems_of(error, StudyConfig, self.place)
        if problems:
            raise ProblemsError(sorted(problems, key=self._line))
        return config

    def _line(self, problem: Problem) -> int:
        return int(problem.place.removeprefix(f"{self.path}:").split(":")[0])


def load_study(path: Path) -> StudyConfig:
    """Read a study file and validate its form; `optimize.studies.check` looks at what it names, too."""
    return read_study_file(path).validate()


def read_study_file(path: Path) -> StudyFile:
    """Read a study file without judging what it says.

    Raises:
        RagwrightError: The file is missing or is not a YAML mapping.
    """
    content, node = read_yaml(path)
    return StudyFile(path, content, node)


def dump_study(config: StudyConfig) -> str:
    """The study as YAML, every setting written out, and no user, password or query of an address."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return without_credentials(text)
