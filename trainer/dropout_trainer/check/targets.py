"""What a TARGET is, and which of the gate's ways of judging it belongs to that."""

from collections.abc import Callable
from pathlib import Path

from dropout_api.candidate import MANIFEST, MC, ONNX
from dropout_api.spec import ExportSpec, Format
from dropout_trainer.check import examples, folders, models
from dropout_trainer.check.arguments import ACCEPTED, Asked
from dropout_trainer.check.usercode import REFERENCE, missing, usage
from dropout_trainer.gate.gate import inspect
from dropout_trainer.gate.local import judge_program
from dropout_trainer.gate.verdict import GateReport, RefusedError, could_not_run

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
    if Path(target).suffix in FILES or "/" in target:
        raise missing(f"{target}: there is no such file or folder")
    raise _not_accepted(repr(target))


def of_path(path: Path, asked: Asked) -> GateReport:
    """The gate's report on a file or a folder."""
    if path.is_dir():
        return _folder(path, asked)
    if path.suffix not in FILES:
        raise _not_accepted(str(path))
    return FILES[path.suffix](path, asked)


def _folder(path: Path, asked: Asked) -> GateReport:
    if (path / MANIFEST).is_file():
        return inspect(path, export=_export_of(path)).report
    if not (path / folders.ML_MODEL).is_file():
        raise _not_accepted(f"{path}, a folder with neither {MANIFEST} nor {folders.ML_MODEL},")
    try:
        model, notes = folders.model_in(path)
    except RefusedError as error:
        return GateReport(checks=[could_not_run("load", error.evidence, error.remedy)])
    report = _pickle(path, asked) if model.suffix in folders.PICKLES else of_path(model, asked)
    return report.model_copy(update={"checks": [*report.checks, *notes]})


def _export_of(candidate: Path) -> ExportSpec:
    """What the candidate's job asked for, as far as its files tell: on a terminal there is no job to say so."""
    there = {path.name for path in candidate.iterdir()}
    return ExportSpec(mc_passes=1 if MC in there else None, formats=list(Format) if ONNX in there else [Format.PT2])


def _program(path: Path, asked: Asked) -> GateReport:
    return judge_program(path, examples.named(asked.example) if asked.example else None)


def _onnx(path: Path, asked: Asked) -> GateReport:
    from dropout_trainer.check.onnx import judge as judge_onnx  # onnxruntime takes a while, and few ask for it

    return judge_onnx(path, asked)


def _pickle(path: Path, asked: Asked) -> GateReport:
    """A file, or an MLflow model's folder, that only its own code can load."""
    if not asked.trust:
        why = f"{path.name or path} is a pickle or TorchScript: loading it runs what lies in it, so it was not loaded"
        return GateReport(checks=[could_not_run("load", why, TRUST)])
    from dropout_trainer.gate import sandbox

    if asked.example and not Path(asked.example).is_file():
        raise usage(f"--example {asked.example}: for {path.name} name a .npz, .npy or .safetensors file, which its child process reads")
    return sandbox.judge(path, models.options(asked), Path(asked.example) if asked.example else None)


def _not_accepted(what: str) -> Exception:
    return usage(f"{what} cannot be checked. What can is {ACCEPTED}")


FILES: dict[str, Judge] = {
    ".pt2": _program, ".onnx": _onnx, ".safetensors": models.with_weights, **dict.fromkeys(folders.PICKLES, _pickle),
}
