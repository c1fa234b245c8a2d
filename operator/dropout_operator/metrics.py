"""What Prometheus sees of the operator: its own health, and at most four series and one info series for each job."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dropout_api.names import Gauge as Name
from dropout_api.names import Metric
from dropout_api.status import JobStatus

SERIES = {Name.JOB_TRAIN_LOSS: Metric.TRAIN_LOSS, Name.JOB_VAL_LOSS: Metric.VAL_LOSS, Name.JOB_VAL_GAP: Metric.VAL_GAP}
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The operator's registry. A job's series keep their last values until the job object is deleted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter("dropout_operator_reconciles", "Looks at a job, by how they ended", ["outcome"], registry=self.registry)
        self.seconds = Histogram("dropout_operator_reconcile_seconds", "Time of one look", buckets=SECONDS, registry=self.registry)
        self.queue = Gauge("dropout_operator_queue_length", "Jobs that wait to be looked at", registry=self.registry)
        self.watch_restarts = Counter("dropout_operator_watch_restarts", "Times that the watch was started again", registry=self.registry)
        labels = ["namespace", "name"]
        help_texts = {
            Name.JOB_TRAIN_LOSS: "Latest training loss, in eval mode", Name.JOB_VAL_LOSS: "Latest validation loss",
            Name.JOB_VAL_GAP: "Latest validation loss minus training loss, both in eval mode",
        }
        self._series = {name: Gauge(name, help_texts[name], labels, registry=self.registry) for name in SERIES}
        self._progress = Gauge(Name.JOB_PROGRESS, "Epochs done over epochs asked for", labels, registry=self.registry)
        self._info = Gauge(Name.JOB_INFO, "1 for each job", [*labels, "phase", "run_id", "model"], registry=self.registry)
        self.webhook = Gauge(Name.REGISTRY_WEBHOOK, "1 when MLflow calls the operator, or is asked to", registry=self.registry)
        self._quarantined = Gauge(
            Name.QUARANTINED_VERSIONS, "Versions that did not come through the gate", ["model"], registry=self.registry,
        )
        self._with_quarantined: set[str] = set()
        self._infos: dict[tuple[str, str], tuple[str, str, str]] = {}

    def show_job(self, namespace: str, name: str, status: JobStatus) -> None:
        """Sets the job's series to what its status says."""
        self._show_info(namespace, name, status)
        if status.progress is None:
            return
        self._progress.labels(namespace, name).set(status.progress.percent / 100)
        for series, metric in SERIES.items():
            if metric in status.progress.metrics:
                self._series[series].labels(namespace, name).set(status.progress.metrics[metric])

    def _show_info(self, namespace: str, name: str, status: JobStatus) -> None:
        info = (str(status.phase), status.run.id if status.run else "", status.model.uri if status.model else "")
        old = self._infos.get((namespace, name))
        if old is not None and old != info:
            self._info.remove(namespace, name, *old)
        self._infos[namespace, name] = info
        self._info.labels(namespace, name, *info).set(1)

    def forget_job(self, namespace: str, name: str) -> None:
        """Removes the series of a deleted job."""
        old = self._infos.pop((namespace, name), None)
        if old is None:
            return
        self._info.remove(namespace, name, *old)
        for series in (*self._series.values(), self._progress):
            series.remove(namespace, name)

    def shown(self) -> set[tuple[str, str]]:
        return set(self._infos)

    def show_quarantined(self, counts: Mapping[str, int], whole: bool) -> None:
        """Sets the number for each model; where it is the `whole` registry, models that are missing have none."""
        shown = {model for model, count in counts.items() if count}
        for model in self._with_quarantined & (self._with_quarantined if whole else counts.keys()) - shown:
            self._quarantined.remove(model)
            self._with_quarantined.discard(model)
        for model in shown:
            self._quarantined.labels(model).set(counts[model])
        self._with_quarantined |= shown

    def text(self) -> bytes:
        return generate_latest(self.registry)
