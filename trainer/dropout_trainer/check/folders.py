"""Folders that hold a model: a training pod's candidate, and a model as MLflow saves it, in a folder or behind a URI."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dropout_api.candidate import MANIFEST
from dropout_api.names import ExitCode
from dropout_trainer.check.arguments import ACCEPTED, Asked
from dropout_trainer.check.usercode import missing, usage
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.gate import inspect
from dropout_trainer.gate.verdict import GateReport, could_not_run, not_applicable
from dropout_trainer.verify.patience import configure, error_code, persist

ML_MODEL = "MLmodel"
MAX_ML_MODEL_BYTES = 1 << 20
KINDS = (".pt2", ".onnx", ".pth", ".pt", ".pkl")
"""Kinds of files that hold a model, those that are read without running anything first."""
PATIENCE_SECONDS = 15.0
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""MLflow's words for what it does not have."""
OfPath = Callable[[Path, Asked], GateReport]


def judge(folder: Path, asked: Asked, of_path: OfPath) -> GateReport:
    """Raises StageFailure Usage for a folder that is neither."""
    if (folder / MANIFEST).is_file():
        return inspect(folder).report
    if (folder / ML_MODEL).is_file():
        return _saved(folder, asked, of_path)
    raise usage(f"{folder} is a folder with neither {MANIFEST} nor {ML_MODEL}. What can be checked is {ACCEPTED}")


@contextmanager
def downloaded(uri: str) -> Iterator[Path]:
    """The folder or file behind a URI of MLflow, until the end of the block. Raises StageFailure Missing or TrackingUnavailable."""
    configure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about MLflow's own classes
        from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        try:
            path = persist(lambda: download_artifacts(artifact_uri=uri, dst_path=folder), PATIENCE_SECONDS)
        except StageFailure:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            if error_code(error) in UNKNOWN or isinstance(error, OSError):
                raise missing(f"{uri} is unknown to MLflow: {text}") from None
            raise StageFailure("TrackingRefused", f"MLflow does not give {uri}: {text}", ExitCode.TRACKING_UNAVAILABLE) from None
        yield Path(path)


def _saved(folder: Path, asked: Asked, of_path: OfPath) -> GateReport:
    about = _about(folder / ML_MODEL)
    found = _programs(folder, about)
    if len(found) != 1:
        return GateReport(checks=[_undecided(folder, found)])
    report = of_path(found[0], asked)
    wrapper = _wrapper(about)
    if not wrapper:
        return report
    what = f"{found[0].relative_to(folder)} was judged; the python code that MLflow serves it with ({wrapper}) was neither run nor judged"
    return report.model_copy(update={"checks": [*report.checks, not_applicable("serving_code", what)]})


def _about(path: Path) -> dict[str, Any]:
    try:
        about = yaml.safe_load(path.read_bytes()) if path.stat().st_size <= MAX_ML_MODEL_BYTES else None
    except (yaml.YAMLError, RecursionError, ValueError):
        about = None
    flavors = about.get("flavors") if isinstance(about, dict) else None
    if not isinstance(flavors, dict):
        raise usage(f"{path} is no description of a model as MLflow writes it")
    return {str(name): flavor if isinstance(flavor, dict) else {} for name, flavor in flavors.items()}


def _programs(folder: Path, about: dict[str, Any]) -> list[Path]:
    """The files that hold the model: of the first kind that is there, or the one that the gate's own versions name as their program."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    try:
        named = folder / about["python_function"]["artifacts"]["program"]["path"]
    except (KeyError, TypeError):
        named = None
    if named in files:
        return [named]
    kinds = [[path for path in files if path.suffix == kind] for kind in KINDS]
    return next((paths for paths in kinds if paths), [])


def _undecided(folder: Path, found: list[Path]) -> Any:
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:8])
        return could_not_run("load", f"the model's folder holds several programs: {names}", "name one of these files as the target")
    return could_not_run("load", "the model's folder holds no torch or ONNX model", "log the model with mlflow.pytorch, or check its file")


def _wrapper(about: dict[str, Any]) -> str:
    """What python code of the model's own answers in MLflow's name; empty when MLflow's alone does."""
    served = about.get("python_function", {})
    own = [str(served[key]) for key in ("model_code_path", "python_model", "code") if isinstance(served.get(key), str)]
    return ", ".join(own)[:200]
