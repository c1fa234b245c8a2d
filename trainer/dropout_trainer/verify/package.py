"""Makes the folder that becomes a model version: a pyfunc model from code around the checked program."""

from importlib.metadata import version
from pathlib import Path

import torch

from dropout_api.candidate import PROGRAM, CandidateConfig
from dropout_trainer.gate.candidate import read_heldout
from dropout_trainer.gate.target import quiet

CODE = "serving.py"
EXAMPLE_ROWS = 2


def build(candidate: Path, config: CandidateConfig, sha256: str, target: Path) -> None:
    """Writes the model folder to `target`, which must not exist.

    The signature takes [-1, ...] of the candidate's type and gives [-1, classes] float32; packages are pinned to what the
    gate ran with, because a program means what its torch makes of it. It holds no pickle.
    """
    with quiet():  # MLflow warns about its own classes when it is imported
        import mlflow.pyfunc
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

    dtype = np.dtype(config.input_dtype)
    mlflow.pyfunc.save_model(
        path=str(target),
        python_model=str(Path(__file__).with_name(CODE)),
        artifacts={"program": str(candidate / PROGRAM)},
        model_config={"sha256": sha256, "input_dtype": config.input_dtype},
        signature=ModelSignature(
            inputs=Schema([TensorSpec(dtype, (-1, *config.input_shape))]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, config.classes))]),
        ),
        input_example=read_heldout(candidate, config).input[:EXAMPLE_ROWS].numpy(),
        pip_requirements=requirements(),
    )


def requirements() -> list[str]:
    """What a server must install, exactly; torch without its local label (+cpu), which the public index does not know."""
    return [f"mlflow=={version('mlflow')}", f"torch=={torch.__version__.split('+')[0]}", f"numpy=={version('numpy')}"]
