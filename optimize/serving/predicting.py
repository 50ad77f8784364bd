"""Answers to a file of questions: in order, several at a time, and gone on with after whatever ended it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from optimize.runs.progress import Progress
from optimize.runs.run_dir import write_whole
from optimize.serving.answering import Answered, one_line
from optimize.serving.predicting_questions import Asked, read_questions
from programs.config import fingerprint
from programs.errors import BudgetExhaustedError, EndpointError, RagwrightError
from programs.metering import collect_calls
from programs.types import Passage

if TYPE_CHECKING:
    from optimize.exporting.exported import ExportedProgram


@dataclass(frozen=True, slots=True)
class Predicted:
    """What came of a whole file.

    Attributes:
        out: The file with the answers.
        questions: Lines of it.
        answered: Of them, those with an answer.
        failed: Those with an error, asked again by the next start.
        before: Those that an earlier start had answered.
        calls: LM calls of this start, cached ones included.
        paid_calls: Those that were really made.
        prompt_tokens: Tokens that the LM read in this start.
        completion_tokens: Tokens that it wrote.
        usd: Money of this start; None where a price is not known.
    """

    out: Path
    questions: int
    answered: int
    failed: int
    before: int
    calls: int
    paid_calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "out": str(self.out)}


def predict(exported: ExportedProgram, questions: Path, out: Path, threads: int, progress: Progress) -> Predicted:
    """Answer every question of a file; what an earlier start has answered is not asked again.

    While it works, finished rows stand in `<out>.partial`, each written when it is there; at the end they become `out`,
    in the order of the questions. A question that fails has a row with its `error`, and the next start asks it again.
    An answer is known by its question's text, so that lines may be added, removed and moved between two starts.

    Args:
        exported: Answers.
        questions: The file of questions.
        out: Where the answers go, one JSON object a line.
        threads: Questions at the same time.
        progress: Hears how far it is.

    Raises:
        RagwrightError: A file cannot be used, `out` holds answers of something else, or the LM refuses every call; what
            was answered is kept.
    """
    asked = read_questions(questions)
    program = program_id(exported)
    with _locked(out):
        kept = {**_kept(out, program, asked), **_kept(_partial(out), program, asked)}
        left = [one for one in asked if one.question not in kept]
        work = _Work(exported, program, _partial(out), progress, len(asked))
        fresh = work.answer(left, threads)
        rows = [fresh.get(one.line) or {**kept[one.question], "line": one.line, "id": one.id} for one in asked]
        write_whole(out, "".join(_line(row) for row in rows))
        _partial(out).unlink(missing_ok=True)
    failed = sum(row["error"] is not None for row in rows)
    return Predicted(out, len(rows), len(rows) - failed, failed, len(rows) - len(left), *work.spent())


def program_id(exported: ExportedProgram) -> str:
    """Twelve hex digits that change with everything that decides an answer."""
    from optimize.exporting.export import PROGRAM
    from programs.catalogue import source_identity

    prompts = json.loads((exported.folder / PROGRAM).read_text(encoding="utf-8"))
    prompts.pop("metadata", None)
    source = source_identity(exported.program_name)
    return fingerprint([exported.index, exported.config.as_params(), exported.spec.identity(), source, prompts])


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second process from writing the same answers."""
    from filelock import FileLock, Timeout

    if not out.parent.is_dir():
        raise RagwrightError(f"{out}: there is no folder {out.parent}; make it first.")
    if out.is_dir():
        raise RagwrightError(f"{out}: is a folder; name a file for the answers.")
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RagwrightError(f"{out}: another process is writing it; wait for it or stop it.") from None
    except OSError as error:
        raise RagwrightError(f"{out}: cannot be written: {error.strerror}; name another file.") from None
    try:
        yield
    finally:
        lock.release()


def _kept(file: Path, program: str, asked: Sequence[Asked]) -> dict[str, Mapping[str, Any]]:
    """Question -> the row of an earlier start, where it has an answer.

    Raises:
        RagwrightError: The file holds something else, or answers of another program or to other questions.
    """
    if not file.is_file():
        return {}
    rows = list(_rows(file))
    if others := [row["program"] for row in rows if row["program"] != program]:
        raise RagwrightError(
            f"{file}: holds answers of another program ({others[0]}, this one is {program}); name another file, or "
            "delete it."
        )
    questions = {one.question for one in asked}
    found = [row for row in rows if row["question"] in questions]
    if rows and not found:
        raise RagwrightError(f"{file}: holds answers to other questions only; name another file, or delete it.")
    return {row["question"]: row for row in found if row["error"] is None}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of answers; a killed process may have left the last one of a partial file without its end."""
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            yield row
        elif line.strip() and not (number == len(lines) and file.name.endswith(".partial")):
            raise RagwrightError(
                f"{file}:{number}: is no row of `ragwright predict`; name another file for the answers."
            )


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(row, dict) and {"line", "program", "error"} <= set(row)
    return row if known and isinstance(row.get("question"), str) else None


def _line(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False) + "\n"
    # Half of a surrogate pair, which a model may write, is no UTF-8: JSON has an escape for it.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _Work:
    """Answers what is left, and writes each row when it is there."""

    def __init__(self, exported: ExportedProgram, program: str, partial: Path, progress: Progress, total: int) -> None:
        self._exported, self._program, self._partial, self._progress = exported, program, partial, progress
        self._total, self._done, self._rows = total, 0, dict[int, Mapping[str, Any]]()
        self._calls = self._paid = self._read = self._written = 0
        self._usd: float | None = 0.0

    def answer(self, left: Sequence[Asked], threads: int) -> dict[int, Mapping[str, Any]]:
        """Line -> row, as far as nothing ends it.

        Raises:
            RagwrightError: The LM refuses every call.
        """
        self._done = self._total - len(left)
        if not left:
            return self._rows
        with self._appending() as file, ThreadPoolExecutor(threads) as pool:
            waiting: set[Future[dict[str, Any]]] = set()
            try:
                for one in left:
                    waiting.add(pool.submit(self._ask, one))
                    # A thousand futures more would only wait.
                    if len(waiting) >= 2 * threads:
                        waiting = self._keep(file, waiting)
                while waiting:
                    waiting = self._keep(file, waiting)
            except BaseException:
                for future in waiting:
                    future.cancel()
                # What is under way is paid for: it is kept before the end.
                self._keep_ended(file, waiting)
                raise
        return self._rows

    def spent(self) -> tuple[int, int, int, int, float | None]:
        """Calls, paid calls, tokens read and written, money."""
        return self._calls, self._paid, self._read, self._written, self._usd

    @contextmanager
    def _appending(self) -> Iterator[IO[str]]:
        """The file of finished rows, from the end of its last whole line on."""
        if self._partial.is_file():
            content = self._partial.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                write_whole(self._partial, content[:whole].decode("utf-8"))
        with self._partial.open("a", encoding="utf-8", newline="\n") as file:
            yield file

    def _keep(self, file: IO[str], waiting: set[Future[dict[str, Any]]]) -> set[Future[dict[str, Any]]]:
        """Write the rows that are there; the ones that are not."""
        done, left = wait(waiting, return_when=FIRST_COMPLETED)
        # All that is there is written before an error among it ends the work.
        failed = [future for future in done if future.exception() is not None]
        for future in done - set(failed):
            self._write(file, future.result())
        if failed:
            failed[0].result()
        return left

    def _keep_ended(self, file: IO[str], waiting: set[Future[dict[str, Any]]]) -> None:
        for future in wait({future for future in waiting if not future.cancelled()})[0]:
            if future.exception() is None and future.result()["line"] not in self._rows:
                self._write(file, future.result())

    def _write(self, file: IO[str], row: dict[str, Any]) -> None:
        file.write(_line(row))
        file.flush()
        self._rows[row["line"]] = row
        self._done += 1
        self._calls += row["calls"]
        self._paid += row["paid_calls"]
        self._read += row["prompt_tokens"]
        self._written += row["completion_tokens"]
        self._usd = None if self._usd is None or row["usd"] is None else self._usd + row["usd"]
        self._progress.working("questions", self._done, self._total, f"{self._read + self._written} tokens")

    def _ask(self, one: Asked) -> dict[str, Any]:
        """The row of a question; what a program raises becomes its error, except what ends everything."""
        error, answer = None, None
        passages: tuple[Passage, ...] = ()
        with collect_calls() as calls:
            try:
                answer, passages = self._exported.ask(one.question)
            except (EndpointError, BudgetExhaustedError):
                raise
            except Exception as problem:  # noqa: BLE001  # a person's program may raise anything
                error = one_line(problem)
                # Where the LM is dead, this is no question's fault and no row's.
                self._exported.lm.engine.confirm()
        took = Answered(answer or "", passages, tuple(calls))
        return {
            "line": one.line,
            "id": one.id,
            "question": one.question,
            "answer": answer,
            "sources": took.sources,
            "error": error,
            "calls": len(calls),
            "paid_calls": sum(call.paid for call in calls),
            "prompt_tokens": took.prompt_tokens,
            "completion_tokens": took.completion_tokens,
            "usd": took.usd,
            "latency_s": round(sum(call.latency_s for call in calls), 6),
            "program": self._program,
        }
