"""The code of a registered model: loads the exported programs and answers batches. Copied into each version as it is.

It runs wherever the model is served, so it imports mlflow, numpy and torch and nothing of the package that wrote it.
Loading a .pt2 can run code that lies in it; so a program's bytes must be the ones that the gate has passed, by SHA-256.
"""

import hashlib
import threading
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

Array = np.ndarray[Any, Any]


class EvalProgram(PythonModel):  # type: ignore[misc]
    """Answers inputs [N, ...] with [N, outputs], the same at each call; with MC dropout where a call asks for passes.

    The outputs are logits of the classes, or values; of a model of quantiles, those of each value side by side.

    Parameters of a call: `mc_passes` (0: none, the default), `seed` of the passes, and `mc_output`: `mean` of the passes' answers,
    or `std`, their sample standard deviation. The same seed gives the same passes, so a single one is had with `mc_passes` 1.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Raises ValueError when the program is not the one that the gate has passed."""
        self._module = _load(context, "program")
        self._dtype = getattr(torch, context.model_config["input_dtype"])
        self._mc: Any = None
        self._one_at_a_time = threading.Lock()  # passes take turns at torch's one random stream

    # the bare class is the one type of arrays that MLflow leaves to the signature
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None,
    ) -> "np.ndarray[Any, Any]":
        """Answers [N, outputs] float32 for an array [N, ...]. Raises ValueError for a parameter that is out of range."""
        wish: dict[str, Any] = {"mc_passes": 0, "seed": 0, "mc_output": "mean"} | (params or {})
        passes = _checked(wish, context.model_config["mc_passes"])
        batch = torch.from_numpy(np.ascontiguousarray(np.asarray(model_input))).to(self._dtype, copy=True)
        with torch.no_grad():
            if not passes:
                return _array(self._module(batch))
            answers = self._passes(context, batch, passes, int(wish["seed"]))
            return _array(answers.mean(0) if wish["mc_output"] == "mean" else answers.std(0))

    def _passes(self, context: PythonModelContext, batch: torch.Tensor, passes: int, seed: int) -> torch.Tensor:
        """Answers [passes, N, outputs]. Torch's random stream is afterwards as it was."""
        with self._one_at_a_time, torch.random.fork_rng(devices=[]):
            self._mc = self._mc or _load(context, "mc")
            torch.default_generator.manual_seed(seed)
            return torch.stack([self._mc(batch).to(torch.float32) for _ in range(passes)])


def _load(context: PythonModelContext, name: str) -> Any:
    path, expected = context.artifacts[name], context.model_config["sha256"][name]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"the program {name} has SHA-256 {found}, the gate passed {expected}: not loaded")
    return torch.export.load(path).module()


def _checked(wish: dict[str, Any], limit: int) -> int:
    """The number of passes that a call asks for, at most `limit`; 0 in a version without an MC-dropout program."""
    passes, seed, output = int(wish["mc_passes"]), int(wish["seed"]), wish["mc_output"]
    if passes and not limit:
        raise ValueError("mc_passes: this version has no MC-dropout program; train with spec.export.mcPasses to get one that has")
    if not 0 <= passes <= limit:
        raise ValueError(f"mc_passes is {passes}; this version takes 0 to {limit}, which is its spec.export.mcPasses")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it may be 0 to {2**32 - 1}")
    if output not in ("mean", "std"):
        raise ValueError(f"mc_output is {str(output)[:40]!r}; it may be mean or std")
    if output == "std" and passes < 2:
        raise ValueError(f"mc_output std needs mc_passes of 2 or more; it is {passes}")
    return passes


def _array(output: torch.Tensor) -> Array:
    answer: Array = output.to(torch.float32).numpy()
    return answer


mlflow.models.set_model(EvalProgram())
