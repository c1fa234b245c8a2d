"""Puts a Python module into the cage (cage.py), with copies of files, and listens to it for a limited time."""

import json
import os
import selectors
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dropout_trainer.gate import cage
from dropout_trainer.gate.verdict import RefusedError

GIVEN = "/given"
"""Where the cage shows what is judged."""
SYSTEM = ("/bin", "/lib", "/lib64", "/usr", "/etc/ld.so.cache", "/sys/devices/system/cpu")
MAX_ANSWER_BYTES = 4 << 20
MAX_OUTPUT_BYTES = 2000
THREADS = 2


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


@dataclass
class Heard:
    """What came out of the cage. The answer and the output are the foreign code's, the status is ours."""

    answer: bytearray
    output: bytearray
    status: bytearray
    cut_off: str = ""
    """Why it was ended early."""


@contextmanager
def work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gate-cage-") as folder:
        work = Path(folder)
        (work / "root").mkdir()
        (work / "given").mkdir()
        yield work


def give(work: Path, name: str, path: Path) -> str:
    """Puts a copy that anybody can read where the cage shows it read-only. Gives its path in there."""
    target = work / "given" / name / path.name
    target.parent.mkdir(mode=0o755)
    try:
        for source, copy in _plain_files(path, target):
            copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o444)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read ({error.strerror})", "name a file or an MLflow folder that exists") from None
    return f"{GIVEN}/{name}/{path.name}"


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


def run(work: Path, module: str, question: bytes, limits: Limits) -> Heard:
    """Runs a Python module in the cage, with `question` on its standard input, and gives what came out. Nothing runs on afterwards."""
    heard = Heard(bytearray(), bytearray(), bytearray())
    with _pipe() as answer, _pipe() as status:
        spec = _spec(work, module, limits, answer.write.fileno(), status.write.fileno())
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
                streams = {answer.read: heard.answer, status.read: heard.status, process.stdout: heard.output}
                _listen({stream.fileno(): kept for stream, kept in streams.items()}, heard, limits)
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


def _listen(streams: dict[int, bytearray], heard: Heard, limits: Limits) -> None:
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


def _spec(work: Path, module: str, limits: Limits, answer: int, status: int) -> cage.Spec:
    readable = {path: path for path in _readable()}
    return cage.Spec(
        command=[sys.executable, "-m", module, str(answer)], environment=_environment(),
        readable={**readable, GIVEN: str(work / "given")}, root=str(work / "root"), answer=answer, status=status,
        memory_bytes=limits.memory_bytes, scratch_bytes=limits.scratch_bytes, cpu_seconds=limits.cpu_seconds,
        file_bytes=limits.scratch_bytes, processes=limits.processes)


def _environment() -> dict[str, str]:
    """Nothing of the caller's own but where Python finds modules: no credential, no address."""
    folders = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"), cage.SCRATCH)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    return {**folders, **threads, "PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(_modules()), "USER": "nobody", "LOGNAME": "nobody",
            "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}


def _modules() -> list[str]:
    """The caller's module path, which the file's classes may be on."""
    return list(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path))


def _readable() -> list[str]:
    """What Python needs: the system's libraries, its own, and the caller's modules; none of them inside another."""
    wanted = [path for path in (*SYSTEM, sys.prefix, sys.base_prefix, *_modules()) if path != "/" and os.path.exists(path)]
    return [path for path in dict.fromkeys(wanted) if not any(path != other and Path(path).is_relative_to(other) for other in wanted)]
