"""Models as MLflow saves them, in a folder or behind a URI. Only the description is read here; nothing is loaded."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dropout_api.names import ExitCode
from dropout_api.verdict import CheckResult
from dropout_trainer.check.usercode import missing
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import RefusedError, not_applicable
from dropout_trainer.verify.patience import configure, error_code, persist

ML_MODEL = "MLmodel"
MAX_ML_MODEL_BYTES = 1 << 20
PROGRAMS = (".pt2", ".onnx")
PICKLES = (".pth", ".pt", ".pkl")
PATIENCE_SECONDS = 15.0
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
"""MLflow's words for what it does not have."""


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


def model_in(folder: Path) -> tuple[Path, list[CheckResult]]:
    """The one file that holds the model, and what is to be said of the code around it.

    A program comes before a pickle of the same model. Raises RefusedError when there is none, or more than one.
    """
    flavors = _flavors(folder / ML_MODEL)
    found = _files(folder, flavors)
    if not found:
        raise RefusedError("the model's folder holds no torch or ONNX model", "log the model with mlflow.pytorch, or check its file")
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:8])
        raise RefusedError(f"the model's folder holds several: {names}", "name one of these files as the target")
    code = _code(flavors)
    if not code:
        return found[0], []
    judged = found[0].relative_to(folder)
    what = f"{judged} was judged; the python code that MLflow serves it with ({code}) was neither run nor judged"
    return found[0], [not_applicable("serving_code", what)]


def _flavors(path: Path) -> dict[str, Any]:
    try:
        about = yaml.safe_load(path.read_bytes()) if path.stat().st_size <= MAX_ML_MODEL_BYTES else None
    except (yaml.YAMLError, RecursionError, ValueError):
        about = None
    flavors = about.get("flavors") if isinstance(about, dict) else None
    if not isinstance(flavors, dict):
        raise RefusedError(f"{ML_MODEL} is no description of a model as MLflow writes it", "log the model with MLflow again")
    return {str(name): flavor if isinstance(flavor, dict) else {} for name, flavor in flavors.items()}


def _files(folder: Path, flavors: dict[str, Any]) -> list[Path]:
    """What the gate's own versions name as their program, else every file of the first kind that is there; never through a link."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    try:
        named = folder / flavors["python_function"]["artifacts"]["program"]["path"]
    except (KeyError, TypeError):
        named = None
    if named in files:
        return [named]
    kinds = [[path for path in files if path.suffix == kind] for kind in (*PROGRAMS, *PICKLES)]
    return next((paths for paths in kinds if paths), [])


def _code(flavors: dict[str, Any]) -> str:
    """What python code of the model's own answers in MLflow's name; empty when MLflow's alone does."""
    served = flavors.get("python_function", {})
    return ", ".join(str(served[key]) for key in ("model_code_path", "python_model", "code") if isinstance(served.get(key), str))[:200]
