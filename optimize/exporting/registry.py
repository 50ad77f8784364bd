"""The winner in MLflow's registries: its prompt as a version, its program as a model that any machine can serve."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimize.evaluation.outcome import Outcome
from optimize.exporting.export import MANIFEST, PIPELINE, PROGRAM

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

CHALLENGER, CHAMPION = "challenger", "champion"
CONTENT = "ragwright.content"
"""Tag of a version: a digest of what it was made from. The same export is not registered twice."""

LONGEST = 100_000
"""Characters that MLflow keeps of a prompt."""

_LINKED = "mlflow.linkedPrompts"
"""Tag by which MLflow's pages find the prompts of a run and of a model."""

_EXPERIMENTS = "_mlflow_experiment_ids"
"""Tag by which an experiment's page finds its prompts."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What stands in the registries now.

    Attributes:
        name: Of the model, and the beginning of the prompts' names.
        model_version: The model's version.
        prompts: Predictor -> name and version of its prompt.
        aliases: Those that point at this version.
    """

    name: str
    model_version: int
    prompts: dict[str, tuple[str, int]]
    aliases: tuple[str, ...]


def register(client: MlflowClient, uri: str, run_id: str, export: Path, outcome: Outcome) -> Registered:
    """Register an export's prompts and its program, or find them where this export was registered before.

    Args:
        client: Of the store at `uri`.
        uri: The tracking URI; its registry is the one that is used.
        run_id: The study's parent run, which prompts and model are linked to.
        export: The export folder.
        outcome: Its verdict decides on the alias `champion`; `challenger` is always moved here.

    Raises:
        MlflowException: The store refuses something.
        OSError: A file cannot be read or written.
        RagwrightError: The export's corpus cannot be read.
    """
    manifest = json.loads((export / MANIFEST).read_text(encoding="utf-8"))
    name = registered_name(outcome.dataset, outcome.study)
    aliases = (CHALLENGER, CHAMPION) if outcome.verdict == "better" else (CHALLENGER,)
    work = _Registration(client, uri, run_id, export, manifest, name, aliases)
    prompts = {entry["predictor"]: work.prompt(entry) for entry in manifest["prompts"]}
    linked = json.dumps([{"name": prompt, "version": str(version)} for prompt, version in prompts.values()])
    client.set_tag(run_id, _LINKED, linked)
    version = work.model(linked)
    client.set_tag(run_id, "ragwright.model", f"models:/{name}/{version}")
    return Registered(name, version, prompts, aliases)


def registered_name(dataset: str, study: str) -> str:
    """The model's name: letters, digits, `-` and `_`."""
    return "-".join(("ragwright", _plain(dataset), _plain(study)))[:200]


@dataclass(frozen=True)
class _Registration:
    """One export on its way into the registries."""

    client: MlflowClient
    uri: str
    run_id: str
    export: Path
    manifest: Mapping[str, Any]
    name: str
    aliases: tuple[str, ...]

    def prompt(self, entry: Mapping[str, Any]) -> tuple[str, int]:
        """The version of a predictor's prompt, made where it is not there yet."""
        # A prompt and a model cannot have one name; a dot is in no model's.
        name = f"{self.name}.{_plain(entry['predictor'])}"
        template = self._template(entry)
        content = _digest(template, entry["settings"])
        known = self.client.search_prompts(f"name = '{name}'")
        version, had = _find(self.client.search_prompt_versions(name) if known else (), content)
        if version is None:
            made = self.client.register_prompt(
                name,
                template,
                commit_message=self.manifest["result"],
                tags={CONTENT: content},
                response_format=_schema(entry["settings"]),
                model_config=self._model_config(entry["settings"]),
            )
            version = int(made.version)
            _wait_for("link_prompt_to_experiment_thread")
            experiment = self.client.get_run(self.run_id).info.experiment_id
            self.client.set_prompt_tag(name, _EXPERIMENTS, f",{experiment},")
        for tag, value in self._tags().items():
            if had.get(tag) != value:
                self.client.set_prompt_version_tag(name, version, tag, value)
        for alias in self.aliases:
            self.client.set_prompt_alias(name, alias, version)
        return name, version

    def model(self, linked: str) -> int:
        """The version of the model, made where it is not there yet."""
        content = _digest(*((self.export / file).read_text(encoding="utf-8") for file in (PROGRAM, PIPELINE)))
        version, had = _find(self.client.search_model_versions(f"name='{self.name}'"), content)
        tags = {**self._tags(), CONTENT: content}
        if version is None:
            self._find_or_make_model()
            logged = self._logged_model({**tags, _LINKED: linked})
            # A database client looks a model's id up in the store of the whole process, a server in its own.
            source = f"models:/{logged.model_id}" if self.uri.startswith("http") else logged.artifact_location
            made = self.client.create_model_version(
                self.name,
                source,
                run_id=self.run_id,
                tags=tags,
                description=self.manifest["result"],
                model_id=logged.model_id,
            )
            version, had = int(made.version), tags
        for tag, value in tags.items():
            if had.get(tag) != value:
                self.client.set_model_version_tag(self.name, str(version), tag, value)
        for alias in self.aliases:
            self.client.set_registered_model_alias(self.name, alias, str(version))
        return version

    def _template(self, entry: Mapping[str, Any]) -> str | list[dict[str, Any]]:
        file = self.export / entry["file"]
        text = file.read_bytes().decode("utf-8")
        if entry["stop"] is not None:
            return text if len(text) <= LONGEST else _too_long(entry)
        content = json.loads(text)
        messages: list[dict[str, Any]] = next(
            one["messages"] for one in content if one["predictor"] == entry["predictor"]
        )
        return messages if len(json.dumps(messages)) <= LONGEST else _too_long(entry)

    def _model_config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        named = {"model_name": self.manifest["endpoint"]["model"], "stop_sequences": settings.get("stop")}
        sampling = {name: settings.get(name) for name in ("temperature", "max_tokens")}
        return {name: value for name, value in {**named, **sampling}.items() if value is not None}

    def _tags(self) -> dict[str, str]:
        """What a version is, and how good it was found to be."""
        manifest = self.manifest
        study = f"{manifest['study']['name']}-{manifest['study']['fingerprint']}"
        tags = {"study": study, "run": self.run_id, "verdict": manifest["verdict"] or "none", "lm": manifest["lm"]}
        tags |= {name: manifest[name] for name in ("metric", "candidate", "configuration", "index", "corpus")}
        tags |= {name: f"{round(value, 4):g}" for name, value in _scores(manifest)}
        return {f"ragwright.{name}": str(value) for name, value in tags.items()}

    def _find_or_make_model(self) -> None:
        if not self.client.search_registered_models(f"name='{self.name}'"):
            self.client.create_registered_model(self.name, {"ragwright": "model"}, "Answers questions, with sources.")

    def _logged_model(self, tags: Mapping[str, str]) -> LoggedModel:
        """The model among its run's outputs."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        from optimize.exporting.model import save_model, undisturbed

        run = self.client.get_run(self.run_id)
        params = {name: str(value) for name, value in self._params().items()}
        made = self.client.create_logged_model(
            run.info.experiment_id, "answers", self.run_id, dict(tags), params, "ragwright"
        )
        ended = LoggedModelStatus.FAILED
        try:
            with tempfile.TemporaryDirectory() as place, undisturbed():
                model = Model(artifact_path=made.artifact_location, run_id=self.run_id, model_id=made.model_id)
                save_model(self.export, Path(place, "model"), model)
                self.client.log_model_artifacts(made.model_id, str(Path(place, "model")))
            ended = LoggedModelStatus.READY
        finally:
            self.client.finalize_logged_model(made.model_id, ended)
        self.client.log_outputs(self.run_id, [LoggedModelOutput(made.model_id, step=0)])
        return made

    def _params(self) -> Mapping[str, Any]:
        import yaml

        pipeline = yaml.safe_load((self.export / PIPELINE).read_text(encoding="utf-8"))
        return {**pipeline["pipeline"], "candidate": self.manifest["candidate"], "program": pipeline["program"]}


def _scores(manifest: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name -> number, of what the confirm phase and the test have found."""
    for phase in ("confirm", "test"):
        for side, names in (("baseline", ("score",)), ("winner", ("score", "low", "high", "n"))):
            found = manifest["scores"][phase][side] or {}
            yield from ((f"{phase}.{side}.{name}", found[name]) for name in names if found.get(name) is not None)
    difference = manifest["difference"] or {}
    for name in ("mean", "low", "high"):
        if difference.get(name) is not None:
            yield f"test.difference.{name}", difference[name]


def _find(versions: Iterable[Any], content: str) -> tuple[int | None, Mapping[str, str]]:
    """The latest version of this content, and its tags."""
    found = [version for version in versions if version.tags.get(CONTENT) == content]
    latest = max(found, key=lambda version: int(version.version), default=None)
    return (None, {}) if latest is None else (int(latest.version), latest.tags)


def _plain(name: str) -> str:
    """What MLflow takes of a name. A letter that it does not take leaves a digest, so that names stay different."""
    letters = unicodedata.normalize("NFKD", name)
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", "".join(one for one in letters if not unicodedata.combining(one)))
    lost = any(one.isalnum() and not one.isascii() for one in letters)
    return "-".join(part for part in (plain.strip("-"), _digest(name)[:6] if lost else "") if part)


def _schema(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    wanted = settings.get("response_format") or {}
    return (wanted.get("json_schema") or {}).get("schema")


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _too_long(entry: Mapping[str, Any]) -> str:
    return f"Longer than the registry keeps: see {entry['file']} in the artifacts of this version's run, under export."


def _wait_for(threads: str) -> None:
    """Wait for threads of MLflow's that are at work on what comes next."""
    for thread in threading.enumerate():
        if thread.name.startswith(threads):
            thread.join(timeout=30)
