"""The job in Hugging Face's Trainer: one callback."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from dropout_api.names import ExitCode
from dropout_trainer.data import Data, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.loop.job import METRIC, Job

RESUMED = "from-the-job"
NAMES = {
    "loss": "train_loss_with_dropout", "learning_rate": "learning_rate", "grad_norm": "grad_norm",
    "eval_train_loss": "train_loss", "eval_val_loss": "val_loss",
}
"""The Trainer's metrics under the platform's names; others of eval_ become val_."""
LEFT_OUT = ("model", "pytorch_model", "training_args")
"""How the files of the Trainer's checkpoint begin that are not saved: weights, and the arguments, which are the program's."""
COSTS = ("_runtime", "_per_second")


class _Checkpoint:
    """The Trainer's own checkpoint, a folder, as a state: what is pickled in it was written by this process, and is written anew from
    verified tensors and numbers by the one that goes on. It is without the weights: the Trainer saves those of some models under names
    that it does not find again (ViT, in transformers 5.24)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        files = sorted(path for path in self.folder.iterdir() if not path.name.startswith(LEFT_OUT)) if self.folder.exists() else []
        return {path.name: _read(path) for path in files}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in state.items():
            _write(self.folder / Path(name).name, content)


class DropoutCallback(TrainerCallback):  # type: ignore[misc]  # its package has no types
    """Records each epoch, saves what the Trainer saves, goes on from it, and exports the model at the end.

    `test` is what `Job.export` takes; the model's forward takes its inputs first. Give the Trainer eval_dataset={"train": …, "val": …} to
    have both losses measured in eval mode; with one set alone its loss is val_loss. Saving follows save_strategy, which should be "epoch".
    Raises StageFailure for a rule of the plan that matches no layer.
    """

    def __init__(self, job: Job, model: torch.nn.Module, test: Data | Split | tuple[Tensor, Tensor]) -> None:
        self._job, self._test, self._metrics = job, test, dict[str, float]()
        self._scratch = tempfile.TemporaryDirectory(prefix="trainer-")
        self._model, self._checkpoint = model, _Checkpoint(Path(self._scratch.name) / RESUMED)
        job.apply(model)

    def resume_from(self) -> str | None:
        """For `Trainer.train(resume_from_checkpoint=…)`: the job's last good checkpoint, as the Trainer reads one; None without."""
        if not self._job.resume(self._model, self._checkpoint):
            return None
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}
        save_file(weights, self._checkpoint.folder / SAFE_WEIGHTS_NAME, {"format": "pt"})
        return str(self._checkpoint.folder)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._job.keeper is not None and args.save_strategy != "epoch":
            given = getattr(args.save_strategy, "value", args.save_strategy)
            message = f"TrainingArguments(save_strategy={given!r}): the job's checkpoints are of whole epochs; use 'epoch'"
            raise StageFailure("UserCode", message, ExitCode.USER_CODE)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any) -> None:
        self._metrics |= {NAMES[name]: float(value) for name, value in logs.items() if name in NAMES}

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any,
    ) -> None:
        for name, value in metrics.items():
            own = NAMES.get(name, name.replace("eval_val_", "eval_").replace("eval_", "val_", 1))
            if name.startswith("eval_") and not name.endswith(COSTS) and METRIC.fullmatch(own):
                self._metrics[own] = float(value)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not float(state.epoch or 0).is_integer():
            return
        self._tell(state)
        self._checkpoint.folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self._job.save(self._job.epoch)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._tell(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any) -> None:
        self._tell(state)
        self._job.export(model, self._test)

    def _tell(self, state: TrainerState) -> None:
        epoch = round(state.epoch or 0)
        if epoch > self._job.epoch:
            self._job.log(epoch, **self._metrics)
        self._metrics = {}


def _read(path: Path) -> Any:
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=False)  # this process has just written it
    return path.read_bytes()


def _write(path: Path, content: Any) -> None:
    if path.suffix in (".pt", ".pth"):
        torch.save(content, path)
    else:
        path.write_bytes(content)
