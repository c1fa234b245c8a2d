"""What cannot be together, as far as the spec alone makes it certain: nothing here looks at data or builds a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from dropout_api.builtins.arguments import Arguments
from dropout_api.builtins.data import SeriesArguments, TableArguments
from dropout_api.metrics import CLASSIFICATION, GAP, OF_TASK, MetricName, QualityBar, TaskKind, smaller_is_better
from dropout_api.names import CHECKPOINTS_PATH, OWN_VOLUMES
from dropout_api.problems.problem import Problem
from dropout_api.problems.shape import Path
from dropout_api.spec import JobSpec

T = TypeVar("T")
OF_CLASSES = ("sklearn", "fashion_mnist", "text", "images")
"""Built-in data whose targets are always class numbers."""
WITHOUT_IMAGES = ("csv", "parquet", "series", "text")
OF_FLOATS = ("mlp", "cnn", "resnet")
"""Built-in models that take no token numbers."""
SHARES = (*CLASSIFICATION, MetricName.INTERVAL_COVERAGE)
"""Metrics from 0 to 1."""
NOT_NEGATIVE = (MetricName.LOSS, MetricName.MAE, MetricName.RMSE, MetricName.MAPE, *SHARES)
LOSS, TRAINING = "spec.training.loss", "spec.training"


@dataclass(frozen=True)
class Known:
    """A spec without what is wrong in it, and the arguments of its built-ins by `model` and `data`."""

    spec: JobSpec
    arguments: Mapping[str, Arguments | None]
    doubtful: frozenset[str]
    """Fields whose value was wrong, so that nothing follows from them."""
    kept: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    """Numbers in the manifest of the items of lists that had wrong ones."""

    def numbered(self, items: Sequence[T], *path: str) -> Iterator[tuple[int, T]]:
        """The items of the list at `path` within the spec, each with its number in the manifest."""
        return zip(self.kept.get(path, range(len(items))), items, strict=True)

    def sure(self, path: str) -> bool:
        return not any(path == other or other.startswith((f"{path}.", f"{path}[")) for other in self.doubtful)

    @property
    def data_kind(self) -> TaskKind | None:
        """What a model is trained for, by built-in data; None where only the data themselves tell."""
        if self.spec.data is None or not self.sure("spec.data.factory") or not self.sure("spec.data.args.task"):
            return None
        if self.spec.data.factory in OF_CLASSES:
            return TaskKind.CLASSIFICATION
        match self.arguments.get("data"):
            case TableArguments(task=task):
                return task
            case SeriesArguments():
                return TaskKind.REGRESSION
        return None

    @property
    def loss_kind(self) -> TaskKind | None:
        """The same by the loss."""
        name = self.spec.training.loss.name
        if name is None or not self.sure(LOSS):
            return None
        return TaskKind.CLASSIFICATION if name == "CrossEntropy" else TaskKind.REGRESSION

    @property
    def kind(self) -> TaskKind | None:
        return self.data_kind or self.loss_kind


def broken_rules(known: Known) -> Iterator[Problem]:
    """Problems across fields."""
    if known.spec.source is None:
        yield from _spread(known)
        yield from _loss(known)
        yield from _metrics(known)
        yield from _stopping(known)
        yield from _warming(known)
        yield from _folds(known)
        yield from _inputs(known)
    yield from _bars(known)
    yield from _mounts(known)


def _spread(known: Known) -> Iterator[Problem]:
    """Of each batch every process takes a part, which batch norm needs to be of two rows at least."""
    spec, least = known.spec, 2 * known.spec.world_size
    fields = ("spec.nodes", "spec.processesPerNode", "spec.resourcesPerNode", f"{TRAINING}.batchSize")
    if spec.world_size == 1 or spec.command is not None or not all(map(known.sure, fields)):
        return
    if spec.training.batch_size < least:
        message = f"{spec.training.batch_size} rows are too few for {spec.world_size} processes; use {least} or more"
        yield Problem(f"{TRAINING}.batchSize", message)
    if spec.training.compile:
        yield Problem(f"{TRAINING}.compile", f"does not go with {spec.world_size} processes; leave it out, or train with one")


def _loss(known: Known) -> Iterator[Problem]:
    data, loss, spec = known.data_kind, known.loss_kind, known.spec.training.loss
    factory = known.spec.data.factory if known.spec.data else ""
    if data and loss and data is not loss:
        wanted = "CrossEntropy" if data is TaskKind.CLASSIFICATION else "MSE, MAE, Huber or Quantile"
        yield Problem(f"{LOSS}.name", f"{spec.name} does not go with the {_targets(data)} of '{factory}' data; use {wanted}")
    if data is TaskKind.REGRESSION and spec.name is None and known.sure(LOSS):
        of_classes = {"classWeights": spec.class_weights != "Equal", "weights": spec.weights, "labelSmoothing": spec.label_smoothing}
        for name, given in of_classes.items():
            if given:
                yield Problem(f"{LOSS}.{name}", f"goes with classes, but '{factory}' data have values as targets here; leave it out")


def _metrics(known: Known) -> Iterator[Problem]:
    for number, metric in known.numbered(known.spec.training.metrics, "training", "metrics"):
        yield from _fits(known, metric, f"{TRAINING}.metrics[{number}]")


def _stopping(known: Known) -> Iterator[Problem]:
    stopping, path = known.spec.training.early_stopping, f"{TRAINING}.earlyStopping"
    if stopping is None or not known.sure(path):
        return
    name = stopping.monitor.removeprefix("val_")
    if name != GAP:
        yield from _fits(known, MetricName(name), f"{path}.monitor")
    better = "Min" if smaller_is_better(stopping.monitor) else "Max"
    if stopping.mode not in ("Auto", better):
        yield Problem(f"{path}.mode", f"{stopping.mode} would keep the worst epoch of {stopping.monitor}; use Auto or {better}")


def _warming(known: Known) -> Iterator[Problem]:
    warm, epochs, path = known.spec.training.scheduler.warmup_epochs, known.spec.training.epochs, f"{TRAINING}.scheduler.warmupEpochs"
    if warm > epochs and known.sure(path) and known.sure(f"{TRAINING}.epochs"):
        yield Problem(path, f"the learning rate never gets to what is given, because training has {epochs} epochs; warm up in fewer")


def _folds(known: Known) -> Iterator[Problem]:
    """Folds are drawn at random and windows overlap, so nearly every value to forecast would be in a training window, too: on the
    sunspots that cut the validation loss to less than half."""
    asked, path = known.spec.training.cross_validation, f"{TRAINING}.crossValidation.folds"
    if asked is not None and asked.folds and known.sure(path) and isinstance(known.arguments.get("data"), SeriesArguments):
        yield Problem(path, "windows of a series overlap, so that folds would be validated on what they were trained on; use repeats alone")


def _bars(known: Known) -> Iterator[Problem]:
    for number, bar in known.numbered(known.spec.gate, "gate"):
        path = f"spec.gate[{number}]"
        yield from _fits(known, bar.metric, f"{path}.metric")
        yield from _reachable(bar, path)


def _fits(known: Known, metric: MetricName, path: str) -> Iterator[Problem]:
    kind = known.kind if known.spec.source is None else None  # what was trained before, only its run knows
    if kind is not None and metric not in OF_TASK[kind]:
        yield Problem(path, f"{metric} is no metric of {_targets(kind)}; use one of {', '.join(OF_TASK[kind])}")
    elif kind is not None and metric is MetricName.INTERVAL_COVERAGE and known.sure(LOSS) and len(known.spec.training.loss.quantiles) < 2:
        yield Problem(path, f"{metric} needs {LOSS}.name Quantile with at least two quantiles, as [0.05, 0.5, 0.95]")


def _reachable(bar: QualityBar, path: str) -> Iterator[Problem]:
    """Of a bar on a difference nothing is said: it may be of either sign."""
    if bar.baseline is not None:
        return
    shares = "goes from 0 to 1; write 0.95 for 95 %"
    if bar.min is not None and bar.min > 1 and bar.metric in SHARES:
        yield Problem(f"{path}.min", f"nothing passes {bar.min:g}: {bar.metric} {shares}")
    if bar.min is not None and bar.min > 1 and bar.metric is MetricName.R2:
        yield Problem(f"{path}.min", f"nothing passes {bar.min:g}: r2 is 1 at most")
    if bar.max is not None and bar.max < 0 and bar.metric in NOT_NEGATIVE:
        yield Problem(f"{path}.max", f"nothing passes {bar.max:g}: {bar.metric} is never below 0")


def _inputs(known: Known) -> Iterator[Problem]:
    spec = known.spec
    if spec.data is None or spec.model is None or not known.sure("spec.data.factory"):
        return
    data, model = spec.data.factory, spec.model.factory
    if data == "text" and model in OF_FLOATS and known.sure("spec.model.factory"):
        remedy = "use transformer, lstm or one of your own"
        yield Problem("spec.model.factory", f"'{model}' takes no token numbers, which 'text' data are; {remedy}")
    for number, change in known.numbered(spec.data.augmentation, "data", "augmentation"):
        path = f"spec.data.augmentation[{number}].kind"
        if change.kind in ("HorizontalFlip", "RandomCrop") and data in WITHOUT_IMAGES:
            yield Problem(path, f"{change.kind} is for images [N, channels, height, width], which '{data}' data are not; leave it out")
        elif change.kind == "Noise" and data == "text":
            yield Problem(path, "Noise is for floats, and 'text' data are token numbers; leave it out")


def _mounts(known: Known) -> Iterator[Problem]:
    """What the API server would refuse only once the pod is made."""
    template, path = known.spec.pod_template, "spec.podTemplate"
    if not known.sure(f"{path}.volumes") or not known.sure(f"{path}.volumeMounts"):
        return
    volumes = [volume.name for volume in template.volumes]
    for number, name in enumerate(volumes):
        if name in OWN_VOLUMES:
            yield Problem(f"{path}.volumes[{number}].name", f"'{name}' is a volume of the platform's; use another name")
        if name in volumes[:number]:
            yield Problem(f"{path}.volumes[{number}].name", f"there are two volumes '{name}'; give each a name of its own")
    checkpoints = known.spec.checkpoint.volume_claim if known.spec.checkpoint else None
    places = [mount.mount_path for mount in template.volume_mounts]
    for number, mount in enumerate(template.volume_mounts):
        if mount.name not in volumes:
            there = ", ".join(volumes) or "none"
            yield Problem(f"{path}.volumeMounts[{number}].name", f"there is no volume '{mount.name}' in {path}.volumes; there: {there}")
        if mount.mount_path in places[:number]:
            yield Problem(f"{path}.volumeMounts[{number}].mountPath", f"two volumes cannot both be at {mount.mount_path}")
        if mount.mount_path.rstrip("/") == "/tmp" or (template.shared_memory and mount.mount_path.rstrip("/") == "/dev/shm"):  # noqa: S108
            yield Problem(f"{path}.volumeMounts[{number}].mountPath", f"{mount.mount_path} is the platform's; use another place")
        if checkpoints is not None and PurePosixPath(mount.mount_path).is_relative_to(CHECKPOINTS_PATH):
            message = f"{CHECKPOINTS_PATH} is where spec.checkpoint.volumeClaim goes; use another place"
            yield Problem(f"{path}.volumeMounts[{number}].mountPath", message)


def _targets(kind: TaskKind) -> str:
    return "class numbers" if kind is TaskKind.CLASSIFICATION else "values"
