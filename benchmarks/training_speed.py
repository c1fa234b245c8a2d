"""Steps per second of a hand-written loop, of ours, of Lightning and of Hugging Face's Trainer: same model, data and batches, and AdamW
with the same numbers; ours and Hugging Face's take its fused kernel by themselves.

One clock for all: the batches' source notes the time at each batch that is asked of it. Steps between the third and the last batch
of an epoch count, so evaluation, logging at an epoch's end and start-up lie outside. Ours evaluates twice an epoch, on a sample of the
training set and on the validation set, the others once on the latter. All compute on one thread and log to one MLflow store, each as its
library does it by itself. Rounds alternate, because a machine's speed drifts; the median of the rounds' ratios is told. With
DROPOUT_TEST_DEVICE=cuda all train on the GPU, which is waited for at both ends of a window; the bounds are those of a CPU.
"""

import io
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from dropout_testing.device import DEVICE, LIMITS
from dropout_testing.zoo import vision
from operator_load import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dropout_api.spec import TrainingJobSpec
from dropout_trainer.data import Split
from dropout_trainer.train.evaluating import evaluate
from dropout_trainer.train.loop import Training, batches, fit
from dropout_trainer.train.preparing import Ground, prepare, training_on
from dropout_trainer.train.seeds import generator
from dropout_trainer.train.tracking import Tracking

SKIPPED = 2
"""Batches at the start of an epoch that do not count."""
DATA = Path(os.environ.get("CACHE", str(Path.home() / ".cache/dropout-operator"))) / "data"
FASHION = "/usr/share/datasets/fashion-mnist"
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {
        "model": {"factory": "mlp", "args": {"hidden": [256, 256]}},
        "data": {"factory": "csv", "args": {"uri": str(DATA / "credit-default.csv"), "target": "default"}},
        "training": {"epochs": 8, "batchSize": 128},
    },
    "cnn": {
        "model": {"factory": "cnn", "args": {"channels": [16, 32], "dense": 128}},
        "data": {"factory": "fashion_mnist", "args": {"path": FASHION, "limit": 4000}},
        "training": {"epochs": 2, "batchSize": 128},
    },
    "transformer": {
        "model": {"factory": "transformer", "args": {"width": 64, "heads": 4, "layers": 2}},
        "data": {"factory": "text", "args": {"uri": str(DATA / "reviews.csv"), "text": "text", "target": "label", "length": 32}},
        "training": {"epochs": 1, "batchSize": 64},
    },
}


@dataclass
class Clock:
    """When each batch was asked for; an epoch's start is marked by the source."""

    epochs: list[list[float]] = field(default_factory=list)

    def rate(self) -> float:
        """Steps per second over the windows of all epochs."""
        spans = [(len(times) - 1 - SKIPPED, times[-1] - times[SKIPPED]) for times in self.epochs]
        return sum(steps for steps, _ in spans) / sum(seconds for _, seconds in spans)


@dataclass(frozen=True)
class Timed(Split):
    """A split that notes when rows are taken from it; asking for fewer rows than a batch has ends nothing."""

    clock: Clock = field(default_factory=Clock)
    size: int = 1
    batches: int = 1
    """Of an epoch."""

    def take(self, rows: Tensor) -> Split:
        if len(rows) <= self.size:
            times = self.clock.epochs[-1]
            if DEVICE == "cuda" and len(times) in (SKIPPED, self.batches - 1):
                torch.cuda.synchronize()
            times.append(time.perf_counter())
        return Split.take(self, rows)


class Source:
    """The loader of all but ours: the same batches in the same order, as `(inputs, targets)`."""

    def __init__(self, training: Training, split: Timed) -> None:
        self._split, self._size = split, training.spec.batch_size
        self._order = generator(training.seeds, "shuffle")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._split.clock.epochs.append([])
        for rows in batches(len(self._split), self._size, self._order):
            taken = self._split.take(rows)
            yield taken.inputs, taken.targets

    def __len__(self) -> int:
        return self._split.batches


def timed(ground: Ground) -> tuple[Training, Clock]:
    """A training whose batches tell the time."""
    clock, data = Clock(), ground.data
    training = training_on(ground, data, ground.spec.seed)
    size, count = training.spec.batch_size, len(training.batches())
    split = Timed(data.train.inputs, data.train.targets, data.train.segments, clock, size, count)
    return replace(training, data=replace(data, train=split)), clock


def source_of(training: Training) -> Source:
    split = training.data.train
    assert isinstance(split, Timed)
    return Source(training, split)


def optimizer_of(model: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    """AdamW as one writes it; `fused` as ours and Hugging Face's Trainer make it by themselves."""
    return torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=0.01, fused=fused)


def bare(ground: Ground, store: Path) -> float:
    """What one writes by hand: zero_grad, forward, loss, backward, step; the loss and an evaluation logged after each epoch."""
    import mlflow

    training, clock = timed(ground)
    model, optimizer, source = training.model, optimizer_of(training.model), source_of(training)
    with mlflow.start_run():
        for epoch in range(training.spec.epochs):
            model.train()
            total = 0.0
            for inputs, targets in source:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs.to(DEVICE)), targets.to(DEVICE))
                loss.backward()
                optimizer.step()
                total += loss.item()
            mlflow.log_metric("train_loss", total / len(source), epoch)
            mlflow.log_metric("val_loss", evaluate(model, training.data.val, training.objective.task).loss, epoch)
    return clock.rate()


def ours(ground: Ground, store: Path) -> float:
    """`fit`, with its record sent as `dropout train` sends it."""
    import mlflow

    training, clock = timed(ground)
    split = training.data.train
    with mlflow.start_run() as run:
        tracking = Tracking(run.info.run_id)
        tracking.start()
        clock.epochs.append([])
        for result in fit(training):
            tracking.metrics(result.metrics(), result.epoch)
            clock.epochs.append([])
        tracking.drain(60)
    assert isinstance(split, Timed)
    clock.epochs.pop()
    return clock.rate()


def lightning(ground: Ground, store: Path) -> float:
    """LightningModule and Trainer with its MLFlowLogger; no checkpoints, no bars."""
    import lightning as pl
    from lightning.pytorch.loggers import MLFlowLogger

    training, clock = timed(ground)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = training.model

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.model(batch[0]), batch[1]))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return optimizer_of(self.model)

    trainer = pl.Trainer(
        max_epochs=training.spec.epochs, accelerator=DEVICE, logger=MLFlowLogger("bench", tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )
    val = training.data.val
    trainer.fit(Module(), source_of(training), DataLoader([(val.inputs, val.targets)], batch_size=None))
    return clock.rate()


def hugging_face(ground: Ground, store: Path) -> float:
    """Trainer with its MLflow callback, its loss and bookkeeping; its kind of AdamW with the others' numbers."""
    from transformers import Trainer, TrainingArguments

    training, clock = timed(ground)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = training.model

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            answers = self.model(inputs)
            return {"loss": nn.functional.cross_entropy(answers, labels), "logits": answers}

    class Dicts:
        """Trainer takes batches as dictionaries."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self.dataset = range(len(training.data.train))

        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return ({"inputs": inputs, "labels": targets} for inputs, targets in self._inner)

        def __len__(self) -> int:
            return len(self._inner)

    class Same(Trainer):
        def get_train_dataloader(self) -> Any:
            return Dicts(source_of(training))

        def get_eval_dataloader(self, *_: Any) -> Any:
            return Dicts([(training.data.val.inputs, training.data.val.targets)])

    arguments = TrainingArguments(
        output_dir=str(store / "hf"), num_train_epochs=training.spec.epochs, per_device_train_batch_size=training.spec.batch_size,
        use_cpu=DEVICE == "cpu", max_grad_norm=0, report_to=["mlflow"], save_strategy="no", eval_strategy="epoch", logging_strategy="epoch",
        disable_tqdm=True,
    )
    model = Wrapped()
    optimizer = optimizer_of(training.model, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    Same(model, arguments, train_dataset=Dicts([]).dataset, eval_dataset=[0], optimizers=(optimizer, scheduler)).train()
    import mlflow

    mlflow.end_run()
    return clock.rate()


NOISE = 0.98
FAST = "ours, fast dropout"
OTHERS = [("ours", "bare", 0.95), ("ours", "lightning", NOISE), ("ours", "hugging face", NOISE), (FAST, "ours", 0.95)]
BOUNDS = {
    "mlp": [("ours", "bare", 0.95), ("ours", "lightning", 1.4), ("ours", "hugging face", 1.2), (FAST, "bare", 1.3)],
    "cnn": OTHERS, "transformer": OTHERS,
}
"""Which rate over which, and at least how much."""
RUNNERS: dict[str, Callable[[Ground, Path], float]] = {"bare": bare, "ours": ours, "lightning": lightning, "hugging face": hugging_face}


def measure(name: str, rounds: int) -> dict[str, list[float]]:
    """Steps per second of each runner in each round, and of ours with the faster dropout as `FAST`."""
    spec = {**MODELS[name], "dropout": {"implementation": "Native"}, "resourcesPerNode": {"requests": {"cpu": "1"}, "limits": LIMITS}}
    native = prepare(TrainingJobSpec.model_validate(spec))
    fast = replace(native, spec=TrainingJobSpec.model_validate({**spec, "dropout": {"implementation": "Fast"}}))
    result: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder, tracking_to(f"sqlite:///{folder}/mlflow.db"):
        for _ in range(rounds):
            for runner, run in RUNNERS.items():
                result.setdefault(runner, []).append(run(native, Path(folder)))
            result.setdefault(FAST, []).append(ours(fast, Path(folder)))
    return result


@contextmanager
def tracking_to(uri: str) -> Iterator[None]:
    """For all runners: ours and Lightning's ask the environment, and Hugging Face's callback leaves what it was told with MLflow."""
    import mlflow

    os.environ["MLFLOW_TRACKING_URI"] = uri
    mlflow.set_tracking_uri(uri)
    yield
    mlflow.end_run()


def figures(models: Sequence[str] = tuple(MODELS), rounds: int = 3) -> list[Figure]:
    """Ratios of each model's rates, with their bounds. Others are not slower than us when the median says so to within the noise."""
    result = []
    with quiet():
        measured = {name: measure(name, rounds) for name in models}
    for name, rates in measured.items():
        for over, under, least in BOUNDS[name]:
            ratio = statistics.median(mine / theirs for mine, theirs in zip(rates[over], rates[under], strict=True))
            told = f"{ratio:.2f} x ({statistics.median(rates[over]):.0f} and {statistics.median(rates[under]):.0f} steps/s)"
            result.append(Figure(f"training {name}: {over} / {under}", told, f">= {least} x", ratio >= least))
    return result


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own reports, which would bury the table."""
    vision.models()  # Lightning and transformers import torchvision, whose compiled ops a CPU torch does not have
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with redirect_stdout(io.StringIO()):
        yield
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    for figure in figures(sys.argv[1:] or tuple(MODELS)):
        print(figure.name, figure.value, figure.bound, "" if figure.holds else "MISSED", sep="  ")
