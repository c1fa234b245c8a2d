"""The code of a registered model: loads the exported program and answers batches. Copied into each version as it is.

It runs wherever the model is served, so it imports mlflow, numpy and torch and nothing of the package that wrote it.
Loading a .pt2 can run code that lies in it; so the program's bytes must be the ones that the gate has passed, by SHA-256.
"""

import hashlib
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext


class EvalProgram(PythonModel):  # type: ignore[misc]
    """Answers inputs [N, ...] with logits [N, classes], the same at each call."""

    def load_context(self, context: PythonModelContext) -> None:
        """Raises ValueError when the program is not the one that the gate has passed."""
        path = context.artifacts["program"]
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != context.model_config["sha256"]:
            raise ValueError(f"the program has SHA-256 {found}, the gate passed {context.model_config['sha256']}: not loaded")
        self._module = torch.export.load(path).module()
        self._dtype = getattr(torch, context.model_config["input_dtype"])

    # the bare class is the one type of arrays that MLflow leaves to the signature
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None,
    ) -> "np.ndarray[Any, Any]":
        """Logits [N, classes] float32 for an array [N, ...]."""
        batch = torch.from_numpy(np.ascontiguousarray(np.asarray(model_input))).to(self._dtype, copy=True)
        with torch.no_grad():
            output = self._module(batch)
        answer: np.ndarray[Any, Any] = output.to(torch.float32).numpy()
        return answer


mlflow.models.set_model(EvalProgram())
