"""Judges a file that only its own code can load: pickled modules, TorchScript, MLflow folders of them. On demand alone.

The code runs in a cage (cage.py) and with it the checks, so what comes back is the file's own word: every result is
Attested, and someone who means harm can make it say "passed". What it cannot do is reach the network, the user's files or
secrets, other processes, or more memory and time than it is given.
"""

import json
import os
import secrets
import selectors
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from dropout_api.verdict import Basis, CheckResult
from dropout_trainer.gate import cage
from dropout_trainer.gate.gate import SOURCE_CHECKS
from dropout_trainer.gate.local import Options
from dropout_trainer.gate.verdict import GateReport, RefusedError, could_not_run, not_applicable

NAME = "sandbox"
GIVEN = "/given"
"""Where the cage shows what is judged."""
SYSTEM = ("/bin", "/lib", "/lib64", "/usr", "/etc/ld.so.cache", "/sys/devices/system/cpu")
MAX_ANSWER_BYTES = 4 << 20
MAX_OUTPUT_BYTES = 2000
THREADS = 2
CAGED = ("judged by running the file's own code in a child process without network, rights, the user's files and environment: "
         "every result is that code's word")


@dataclass(frozen=True)
class Limits:
    """What the file's code may use."""

    wall_seconds: float = 900
    cpu_seconds: int = 1800
    memory_bytes: int = 16 << 30
    """Address space of one process, and resident memory of all together."""
    scratch_bytes: int = 4 << 30
    """Temporary files; they are in memory."""
    processes: int = 64
    """Processes and threads."""


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


@dataclass
class _Heard:
    """What came out of the cage. The answer and the output are the foreign code's, the status is ours."""

    answer: bytearray
    output: bytearray
    status: bytearray
    cut_off: str = ""
    """Why it was ended early."""


def _ask(path: Path, options: Options, example: Path | None, limits: Limits) -> Any:
    """The report that the child makes, parsed and not yet checked."""
    if sys.platform != "linux":
        raise _no_cage(f"{sys.platform} is not Linux")
    # whoever writes an answer without having read the question did not judge
    token = secrets.token_hex(16)
    with _work_folder() as work:
        given = work / "given"
        question = {"token": token, "options": asdict(options), "model": _give(path, given / "model"),
                    "example": _give(example, given / "example") if example else None}
        heard = _hear(work, json.dumps(question).encode(), limits)
    return _answer(heard, token, limits)


@contextmanager
def _work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gate-cage-") as folder:
        work = Path(folder)
        (work / "root").mkdir()
        (work / "given").mkdir()
        yield work


def _give(path: Path, folder: Path) -> str:
    """A copy that nobody can read, in a folder that the cage shows read-only. Gives its path in there."""
    folder.mkdir(mode=0o755)
    target = folder / path.name
    try:
        for source, copy in _plain_files(path, target):
            copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o444)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read ({error.strerror})", "name a file or an MLflow folder that exists") from None
    return f"{GIVEN}/{folder.name}/{target.name}"


def _plain_files(path: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Every file to copy and where to. A link could bring in what lies elsewhere, and a pipe never ends."""
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                raise RefusedError(f"{entry} is a link or no plain file", "give a folder of plain files")
            yield from _plain_files(entry, target / entry.name)
    elif stat.S_ISREG(path.stat().st_mode):
        yield path, target
    else:
        raise RefusedError(f"{path} is no plain file", "give a file or an MLflow folder")


def _hear(work: Path, question: bytes, limits: Limits) -> _Heard:
    """Runs the child in the cage and gives what came out. Nothing of it runs any more afterwards."""
    heard = _Heard(bytearray(), bytearray(), bytearray())
    with _pipe() as answer, _pipe() as status:
        spec = _spec(work, limits, answer.write.fileno(), status.write.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", cage.__file__, json.dumps(asdict(spec))], pass_fds=(spec.answer, spec.status), env={},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        answer.write.close()
        status.write.close()
        assert process.stdin
        assert process.stdout
        with process:
            try:
                with suppress(BrokenPipeError):  # the status says why
                    process.stdin.write(question)
                    process.stdin.close()
                _listen({answer.read.fileno(): heard.answer, status.read.fileno(): heard.status, process.stdout.fileno(): heard.output}, heard, limits)
            finally:
                process.kill()  # the kernel ends the cage with it
                while os.read(answer.read.fileno(), 1 << 16):
                    pass  # ends when the last process in the cage has
    return heard


@dataclass
class _Pipe:
    read: IO[bytes]
    write: IO[bytes]


@contextmanager
def _pipe() -> Iterator[_Pipe]:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reading, os.fdopen(write, "wb", buffering=0) as writing:
        yield _Pipe(reading, writing)


def _listen(streams: dict[int, bytearray], heard: _Heard, limits: Limits) -> None:
    deadline = time.monotonic() + limits.wall_seconds
    with selectors.DefaultSelector() as selector:
        for descriptor in streams:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                heard.cut_off = f"had not ended after {limits.wall_seconds:g} s"
                return
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 1 << 16)
                streams[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
            del heard.output[:-MAX_OUTPUT_BYTES]
            if len(heard.answer) > MAX_ANSWER_BYTES:
                heard.cut_off = f"answered with more than {MAX_ANSWER_BYTES} bytes"
                return


def _spec(work: Path, limits: Limits, answer: int, status: int) -> cage.Spec:
    readable = {path: path for path in _readable()}
    return cage.Spec(
        command=[sys.executable, "-m", "dropout_trainer.gate.sandbox_child", str(answer)], environment=_environment(),
        readable={**readable, GIVEN: str(work / "given")}, root=str(work / "root"), answer=answer, status=status,
        memory_bytes=limits.memory_bytes, scratch_bytes=limits.scratch_bytes, cpu_seconds=limits.cpu_seconds,
        file_bytes=limits.scratch_bytes, processes=limits.processes)


def _environment() -> dict[str, str]:
    """Nothing of the caller's own but where Python finds modules: no credential, no address."""
    folders = {name: cage.SCRATCH for name in ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")}
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**folders, **threads, "PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(_modules()), "USER": "nobody", "LOGNAME": "nobody",
            "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}


def _modules() -> list[str]:
    """The caller's module path, which the file's classes may be on."""
    return list(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path))


def _readable() -> list[str]:
    """What Python needs: the system's libraries, its own, and the caller's modules; none of them inside another."""
    wanted = [path for path in (*SYSTEM, sys.prefix, sys.base_prefix, *_modules()) if path != "/" and os.path.exists(path)]
    return [path for path in dict.fromkeys(wanted) if not any(path != other and Path(path).is_relative_to(other) for other in wanted)]


def _answer(heard: _Heard, token: str, limits: Limits) -> Any:
    """The report in the answer; RefusedError says why there is none."""
    status = json.loads(heard.status or b"{}")
    if "refused" in status:
        raise _no_cage(status["refused"])
    if trouble := heard.cut_off or _trouble(status, limits):
        raise RefusedError(f"the file's code {trouble}; its last words: {_last(heard.output)}", "look at what the file holds, or try a smaller example")
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
