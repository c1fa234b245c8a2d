"""What is wrong in manifests' files, all of it, as data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dropout_api.names import KIND, ExitCode
from dropout_api.problems import Problem
from dropout_api.problems.manifests import is_training_job, manifest_problems
from dropout_trainer.errors import StageFailure
from dropout_trainer.manifest import Document, read_manifests


@dataclass(frozen=True)
class Judged:
    """A training job of a file and its problems."""

    name: str
    line: int
    body: dict[str, Any]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class JudgedFile:
    """`failure` where the file could not be read, and so holds no jobs that anybody knows."""

    path: str
    jobs: tuple[Judged, ...] = ()
    failure: StageFailure | None = None

    @property
    def exit_code(self) -> ExitCode:
        if self.failure is not None:
            return self.failure.exit_code
        return ExitCode.SPEC_INVALID if any(job.problems for job in self.jobs) else ExitCode.OK


def judge_file(path: str) -> JudgedFile:
    """Every training job in the file; other objects may stand beside them."""
    try:
        return judge_documents(path, read_manifests(path))
    except StageFailure as failure:
        return JudgedFile(path, failure=failure)


def judge_documents(path: str, documents: Sequence[Document]) -> JudgedFile:
    """The same of what was read from the file."""
    jobs = tuple(_judged(document) for document in documents if is_training_job(document.body))
    if not jobs:
        return JudgedFile(path, failure=StageFailure("NoTrainingJob", f"{path}: holds no {KIND}", ExitCode.SPEC_INVALID))
    return JudgedFile(path, jobs)


def worst(files: Sequence[JudgedFile]) -> ExitCode:
    """A file that is missing counts above one that is wrong: of that one at least something is known."""
    codes = {file.exit_code for file in files}
    return next((code for code in (ExitCode.DATA_MISSING, ExitCode.SPEC_INVALID) if code in codes), ExitCode.OK)


def _judged(document: Document) -> Judged:
    metadata = document.body.get("metadata")
    name = metadata.get("name") or metadata.get("generateName") if isinstance(metadata, dict) else None
    return Judged(str(name or "(no name)"), document.line, document.body, (*_repeated(document), *manifest_problems(document.body)))


def _repeated(document: Document) -> Iterator[Problem]:
    """kubectl takes the last without a word, so that what is read above it does not count."""
    for item in document.repeated:
        yield Problem(item.key, f"stands twice in one mapping, again in line {item.line}; keep one")
