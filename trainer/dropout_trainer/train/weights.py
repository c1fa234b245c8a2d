"""Fine-tuning: weights from a safetensors file into a new model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from dropout_api.candidate import CANDIDATE_PATH, CONFIG, WEIGHTS, CandidateConfig
from dropout_api.names import ExitCode
from dropout_api.spec import Weights
from dropout_api.task import RunRef
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure

FIELD = "spec.model.weights"
LISTED = 10
Download = Callable[[str, str, Path], Path]
"""From a run's id, an artifact's path and a folder to the file."""


@dataclass(frozen=True)
class Start:
    """Weights to start from, and how they came to be, where that is known: a file alone does not say what its numbers mean."""

    tensors: Mapping[str, Tensor]
    config: CandidateConfig | None = None


def read_weights(spec: Weights, run: RunRef | None, download: Download) -> Start:
    """What `spec` names. `run` is what the operator has made of `spec.run` or `spec.model`.

    Raises StageFailure when it cannot be read.
    """
    if spec.uri is not None:
        return Start(_parsed(_read_uri(spec.uri), f"{FIELD}.uri: {spec.uri}"))
    if run is None:
        raise StageFailure("TaskInvalid", f"{FIELD}: the task names no run; the operator must be of this release too", ExitCode.USAGE)
    with TemporaryDirectory(prefix="weights-") as folder:
        try:
            weights, config = (download(run.id, f"{CANDIDATE_PATH}/{name}", Path(folder)).read_bytes() for name in (WEIGHTS, CONFIG))
        except Exception as error:
            message = f"{FIELD}: run {run.id} has no candidate that can be read ({str(error)[:200]}); name one that has trained to its end"
            raise StageFailure("DataMissing", message, ExitCode.DATA_MISSING) from None
    return Start(_parsed(weights, f"{FIELD}: run {run.id}"), _config(config))


def _config(content: bytes) -> CandidateConfig | None:
    """None of another release's, whose fields mean something else."""
    try:
        return CandidateConfig.model_validate_json(content)
    except ValidationError:
        return None


def require_same_meaning(start: Start, data: Data) -> None:
    """Raises StageFailure when a token or a class has another number than in the data that the weights were trained on: they would fit
    by shape and mean something else."""
    if start.config is None:
        return
    known = (("tokens", start.config.vocabulary, data.vocabulary), ("classes", start.config.task.class_names, data.class_names))
    for what, before, now in known:
        moved = sum(1 for old, new in zip(before, now, strict=False) if old != new)
        if before and now and moved:
            message = f"{FIELD}: of the data's {len(now)} {what} {moved} have another number than in the weights' training"
            remedy = "set spec.data and spec.seed as they were there, or start without weights"
            raise StageFailure("SpecInvalid", f"{message}; {remedy}", ExitCode.SPEC_INVALID)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], strict: bool) -> list[str]:
    """Puts `weights` into `model`; returns the names that stay as they were drawn.

    With `strict` all must fit. Raises StageFailure when they do not, or when none does.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    fitting = {name: tensor for name, tensor in weights.items() if name in own and tensor.shape == own[name].shape}
    left = [name for name in own if name not in fitting]
    foreign = sorted(name for name in weights if name not in fitting)
    if not fitting or (strict and (left or foreign)):
        raise StageFailure("SpecInvalid", _misfit(own, weights, left, foreign, bool(fitting)), ExitCode.SPEC_INVALID)
    if bad := next((name for name, tensor in fitting.items() if not bool(tensor.isfinite().all())), None):
        message = f"{FIELD}: {bad} holds NaN or infinity; name weights of a training that went well"
        raise StageFailure("DataInvalid", message, ExitCode.DATA_INVALID)
    model.load_state_dict(fitting, strict=False)
    return left


def _misfit(own: dict[str, Tensor], weights: Mapping[str, Tensor], left: list[str], foreign: list[str], some_fit: bool) -> str:
    shapes = [f"{name} is {list(weights[name].shape)}, not {list(own[name].shape)}" for name in left if name in weights]
    parts = [(shapes, "of another shape"), ([name for name in left if name not in weights], "not in the file"),
             ([name for name in foreign if name not in own], "not in the model")]
    told = "; ".join(f"{text}: {', '.join(names[:LISTED])}{' …' if len(names) > LISTED else ''}" for names, text in parts if names)
    lenient = f", or {FIELD}.strict to false to take what fits" if some_fit else ""
    return f"{FIELD}: the weights are of another model ({told}); set spec.model as it was{lenient}"


def _read_uri(uri: str) -> bytes:
    import fsspec  # slow to import

    try:
        with fsspec.open(uri, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError:
        remedy = "mount the volume that holds it with spec.podTemplate.volumes and volumeMounts"
        raise StageFailure("DataMissing", f"{FIELD}.uri: there is no {uri}; {remedy}", ExitCode.DATA_MISSING) from None
    except (OSError, ImportError, ValueError) as error:
        raise StageFailure("DataMissing", f"{FIELD}.uri: {uri} cannot be read: {error}", ExitCode.DATA_MISSING) from None


def _parsed(content: bytes, where: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError) as error:
        message = f"{where} is no safetensors file ({str(error)[:160]}); convert other formats with safetensors.torch.save_file"
        raise StageFailure("DataInvalid", message, ExitCode.DATA_INVALID) from None
    return tensors
