"""Judges a file that only its own code can load: pickled modules, TorchScript, MLflow folders of them. On demand alone.

The code runs in a cage (cage.py) and with it the checks, so what comes back is the file's own word: every result is
Attested, and someone who means harm can make it say "passed". What it cannot do is reach the network, the user's files or
secrets, other processes, or more memory and time than it is given.
"""

import json
import secrets
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dropout_api.verdict import Basis, CheckResult
from dropout_trainer.gate import caged
from dropout_trainer.gate.caged import Heard, Limits
from dropout_trainer.gate.gate import SOURCE_CHECKS
from dropout_trainer.gate.local import Options
from dropout_trainer.gate.verdict import GateReport, RefusedError, could_not_run, not_applicable

NAME = "sandbox"
CHILD = "dropout_trainer.gate.sandbox_child"
CAGED = ("judged by running the file's own code in a child process without network, rights, the user's files and environment: "
         "every result is that code's word")


def judge(path: Path, options: Options = Options(), example: Path | None = None, limits: Limits = Limits()) -> GateReport:  # noqa: B008 - frozen
    """Judges the module in the file or MLflow folder at `path` with the example in `example`, or the folder's own.

    Runs the code that the file carries. Raises nothing for what it holds: a crash, a limit reached, no answer or a forged one
    is a check `sandbox` that could not run, and so is a machine that does not let a process be caged.
    """
    try:
        answer = _ask(path, options, example, limits)
        return _believed(answer)
    except RefusedError as error:
        return GateReport(checks=[could_not_run(NAME, error.evidence, error.remedy)])


def _ask(path: Path, options: Options, example: Path | None, limits: Limits) -> Any:
    """The report that the child makes, parsed and not yet checked."""
    if sys.platform != "linux":
        raise _no_cage(f"{sys.platform} is not Linux")
    # whoever writes an answer without having read the question did not judge
    token = secrets.token_hex(16)
    with caged.work_folder() as work:
        question = {"token": token, "options": asdict(options), "model": caged.give(work, "model", path),
                    "example": caged.give(work, "example", example) if example else None}
        heard = caged.run(work, CHILD, json.dumps(question).encode(), limits)
    return _answer(heard, token, limits)


def _answer(heard: Heard, token: str, limits: Limits) -> Any:
    """The report in the answer; RefusedError says why there is none."""
    status = {key: value for line in heard.status.splitlines() for key, value in json.loads(line).items()}
    if "refused" in status:
        raise _no_cage(status["refused"])
    if trouble := heard.cut_off or _trouble(status, limits):
        raise RefusedError(f"the file's code {trouble}; its last words: {_last(heard.output)}",
                           "look at what the file holds, or try a smaller example")
    try:
        answer = json.loads(heard.answer)
        if set(answer) not in ({"token", "report"}, {"token", "refused"}) or answer.pop("token") != token:
            raise ValueError
        if "report" in answer:
            return answer["report"]
        evidence, remedy = answer["refused"]
        refused = RefusedError(_printable(str(evidence)), _printable(str(remedy))[:1000])
    except (ValueError, TypeError, RecursionError):
        raise RefusedError("the file's code gave no answer, or another one than it was asked for", "do not trust this file") from None
    raise refused


def _trouble(status: dict[str, Any], limits: Limits) -> str:
    """How the code ended when that was not by answering."""
    if status.get("memory"):
        return f"took more than {limits.memory_bytes >> 20} MiB of memory"
    code = status.get("exit")
    if code is None:
        return "ended with its cage"
    return "" if code == 0 else f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _believed(report: Any) -> GateReport:
    """The report that the child sent, as its word. Raises RefusedError when it is none, or passes without the checks that it must hold."""
    try:
        told = GateReport.model_validate(_cleaned(report))
    except (ValidationError, RecursionError):
        raise RefusedError("the file's code sent something that is no report", "do not trust this file") from None
    missing = set(SOURCE_CHECKS) - {check.name for check in told.checks}
    if told.passed and missing:
        raise RefusedError(f"the file's code sent a report without the check {min(missing)}", "do not trust this file")
    checks = [*_attested(told.checks), not_applicable(NAME, CAGED)]
    return told.model_copy(update={"checks": checks, "metrics": {}})


def _attested(checks: Iterable[CheckResult]) -> list[CheckResult]:
    return [check.model_copy(update={"basis": Basis.ATTESTED}) for check in checks]


def _cleaned(value: Any) -> Any:
    """Without signs that would move a terminal's cursor or colour."""
    if isinstance(value, dict):
        return {_printable(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return _printable(value) if isinstance(value, str) else value


def _printable(text: str) -> str:
    return "".join(sign if sign == "\n" or unicodedata.category(sign) not in ("Cc", "Cf", "Cs") else "?" for sign in text)


def _last(output: bytearray) -> str:
    return _printable(" ".join(output.decode(errors="replace").split())[-600:]) or "none"


def _no_cage(why: str) -> RefusedError:
    return RefusedError(
        f"this machine does not let the file's code be caged ({why}), so that it was not run",
        "use Linux 5.12 or later, as root or as a user who may create user namespaces; or give a .pt2, which needs no trust")
