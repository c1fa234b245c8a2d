"""`dropout validate FILE…`: all mistakes of the manifests at once, without a cluster, data or torch."""

import json
from collections.abc import Sequence
from typing import Any

from dropout_trainer.validate.files import JudgedFile, judge_file, worst


def run(paths: Sequence[str], as_json: bool) -> int:
    """Prints what was found. Returns an `ExitCode`: OK, DATA_MISSING where a file is missing, SPEC_INVALID."""
    files = [judge_file(path) for path in paths]
    show(files, as_json)
    return worst(files)


def show(files: Sequence[JudgedFile], as_json: bool) -> None:
    print(json.dumps({"files": [_wire(file) for file in files]}, indent=1) if as_json else "\n".join(map(_text, files)))


def _wire(file: JudgedFile) -> dict[str, Any]:
    jobs = [
        {"name": job.name, "line": job.line, "problems": [{"field": item.field, "message": item.message} for item in job.problems]}
        for job in file.jobs
    ]
    return {"file": file.path, "error": file.failure.message if file.failure else None, "jobs": jobs}


def _text(file: JudgedFile) -> str:
    if file.failure:
        return _printable(file.failure.message)
    lines = []
    for job in file.jobs:
        count = len(job.problems)
        lines.append(f"{file.path}: {job.name}: {'valid' if not count else '1 problem' if count == 1 else f'{count} problems'}")
        lines += [f"  {problem}" for problem in job.problems]
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in line)
