"""Makes the folder that becomes a model version: a pyfunc model from code around the checked programs."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dropout_api.candidate import MC, ONNX, PROGRAM, CandidateConfig
from dropout_api.spec import ExportSpec
from dropout_trainer.gate.candidate import read_heldout
from dropout_trainer.gate.target import quiet

CODE = "serving.py"
EXAMPLE_ROWS = 2
ARTIFACTS = {"program": PROGRAM, "mc": MC, "onnx": ONNX}
"""Names by which the serving code finds a version's files; a version has those that its candidate has. ONNX is for other runtimes."""


def build(candidate: Path, config: CandidateConfig, digests: Mapping[str, str], export: ExportSpec, target: Path) -> None:
    """Writes the model folder to `target`, which must not exist. `digests` are the SHA-256 of the candidate's files.

    The signature takes [-1, ...] of the candidate's type and gives [-1, outputs] float32; packages are pinned to what the
    gate ran with, because a program means what its torch makes of it. It holds no pickle.
    """
    with quiet():  # MLflow warns about its own classes when it is imported
        import mlflow.pyfunc

    present = {name: file for name, file in ARTIFACTS.items() if file in digests}
    mlflow.pyfunc.save_model(
        path=str(target),
        python_model=str(Path(__file__).with_name(CODE)),
        artifacts={name: str(candidate / file) for name, file in present.items()},
        model_config={
            "sha256": {name: digests[file] for name, file in present.items()}, "input_dtype": config.input_dtype,
            "mc_passes": export.mc_passes or 0,
        },
        signature=_signature(config),
        input_example=read_heldout(candidate, config).input[:EXAMPLE_ROWS].numpy(),
        pip_requirements=requirements(),
    )


def _signature(config: CandidateConfig) -> Any:
    """The same for every version: without an MC-dropout program `mc_passes` is refused, where MLflow would drop it without a word."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(config.input_dtype), (-1, *config.input_shape))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, config.task.outputs))]),
        params=ParamSchema([
            ParamSpec("mc_passes", DataType.long, 0), ParamSpec("seed", DataType.long, 0), ParamSpec("mc_output", DataType.string, "mean"),
        ]),
    )


def requirements() -> list[str]:
    """What a server must install, exactly; torch without its local label (+cpu), which the public index does not know."""
    return [f"mlflow=={version('mlflow')}", f"torch=={torch.__version__.split('+')[0]}", f"numpy=={version('numpy')}"]
