"""What a TARGET is, and which of the gate's ways of judging it belongs to that."""

from collections.abc import Callable
from pathlib import Path

from dropout_trainer.check import folders, models
from dropout_trainer.check.arguments import ACCEPTED, Asked
from dropout_trainer.check.usercode import REFERENCE, missing, usage
from dropout_trainer.gate.local import judge_program
from dropout_trainer.gate.verdict import GateReport, could_not_run

PICKLES = (".pt", ".pth", ".pkl")
URIS = ("models:", "runs:")
TRUST = ("export the model with torch.export and check the .pt2, or, if you trust whoever made the file, say --trust: it is then run in a "
         "child process without network and with limits")
Judge = Callable[[Path, Asked], GateReport]


def judge(target: str, asked: Asked) -> GateReport:
    """The gate's report on `target`. Raises StageFailure: Usage, Missing, UserCode, or TrackingUnavailable for a URI."""
    if target.startswith(URIS):
        with folders.downloaded(target) as path:
            return of_path(path, asked)
    if Path(target).exists():
        return of_path(Path(target), asked)
    if REFERENCE.fullmatch(target):
        return models.named(target, asked)
    if Path(target).suffix in (*FILES, *PICKLES) or "/" in target:
        raise missing(f"{target}: there is no such file or folder")
    raise usage(f"{target!r} is not what can be checked: that is {ACCEPTED}")


def of_path(path: Path, asked: Asked) -> GateReport:
    """The gate's report on a file or a folder."""
    if path.is_dir():
        return folders.judge(path, asked, of_path)
    if path.suffix in PICKLES:
        return _pickle(path, asked)
    if path.suffix not in FILES:
        raise usage(f"{path} is not what can be checked: that is {ACCEPTED}")
    return FILES[path.suffix](path, asked)


def _program(path: Path, asked: Asked) -> GateReport:
    from dropout_trainer.check.examples import named

    return judge_program(path, named(asked.example) if asked.example else None)


def _onnx(path: Path, asked: Asked) -> GateReport:
    from dropout_trainer.check import onnx

    return onnx.judge(path, asked)


def _pickle(path: Path, asked: Asked) -> GateReport:
    if not asked.trust:
        why = f"{path.name} is a pickle or TorchScript: reading it runs what lies in it, so it was not read"
        return GateReport(checks=[could_not_run("load", why, TRUST)])
    from dropout_trainer.gate import sandbox

    if asked.example and not Path(asked.example).is_file():
        raise usage(f"--example {asked.example}: for {path.name} name a .npz or .safetensors file, which its child process reads")
    return sandbox.judge(path, models.options(asked), Path(asked.example) if asked.example else None)


FILES: dict[str, Judge] = {".pt2": _program, ".onnx": _onnx, ".safetensors": models.with_weights}
