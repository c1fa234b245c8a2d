"""What Prometheus and the operator read is what the loop yielded, and a port that is taken costs no training."""

import http.client
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dropout_api.metrics import MetricName
from dropout_api.names import METRICS_PATH, PROGRESS_PATH, Gauge
from dropout_api.report import ProgressSample, parse
from dropout_trainer.train.loop import EpochResult
from dropout_trainer.train.telemetry import Telemetry

EPOCH = EpochResult(
    epoch=3, epochs=12, train_loss_with_dropout=0.9, train_loss=0.25, val={MetricName.LOSS: 0.75, MetricName.ACCURACY: 0.5},
    learning_rate=0.001, seconds=2.0,
)


@pytest.fixture
def served() -> Iterator[tuple[Telemetry, int, list[bool]]]:
    healthy = [True]
    telemetry = Telemetry(attempt=2, epochs=12, tracking_healthy=lambda: healthy[0])
    yield telemetry, telemetry.start(0), healthy
    telemetry.stop()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def gauges(port: int) -> dict[str, float]:
    status, body = get(port, METRICS_PATH)
    assert status == 200
    families = text_string_to_metric_families(body.decode())
    samples = [sample for family in families for sample in family.samples]
    assert all(not sample.labels for sample in samples)
    return {sample.name: sample.value for sample in samples}


def test_both_pages_tell_the_latest_epoch(served: tuple[Telemetry, int, list[bool]]) -> None:
    telemetry, port, _ = served
    telemetry.observe(EPOCH)
    assert gauges(port) == {Gauge.TRAIN_LOSS: 0.25, Gauge.VAL_LOSS: 0.75, Gauge.VAL_GAP: 0.5, Gauge.EPOCH: 3, Gauge.EPOCHS: 12}
    sample = parse(ProgressSample, get(port, PROGRESS_PATH)[1])
    assert sample == ProgressSample(attempt=2, epoch=3, epochs=12, eta_seconds=6, metrics=EPOCH.metrics())


def test_before_the_first_epoch_there_is_progress_but_no_loss(served: tuple[Telemetry, int, list[bool]]) -> None:
    _, port, _ = served
    values = gauges(port)
    assert (values[Gauge.EPOCH], values[Gauge.EPOCHS]) == (0, 12)
    assert values[Gauge.TRAIN_LOSS] != values[Gauge.TRAIN_LOSS]
    assert parse(ProgressSample, get(port, PROGRESS_PATH)[1]) == ProgressSample(attempt=2, epoch=0, epochs=12)


def test_progress_tells_whether_tracking_works(served: tuple[Telemetry, int, list[bool]]) -> None:
    _, port, healthy = served
    healthy[0] = False
    sample = parse(ProgressSample, get(port, PROGRESS_PATH)[1])
    assert sample is not None
    assert not sample.tracking_healthy


def test_other_paths_are_not_found(served: tuple[Telemetry, int, list[bool]]) -> None:
    assert get(served[1], "/etc/passwd")[0] == 404


def test_a_taken_port_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("", 0)) as taken:
        telemetry = Telemetry(attempt=1, epochs=1)
        assert telemetry.start(taken.getsockname()[1]) == 0
    telemetry.observe(EPOCH)
    telemetry.stop()
    assert "no metrics and no progress" in caplog.text


def test_a_process_that_goes_on_within_a_later_trial_expects_what_an_uncut_one_would() -> None:
    uncut, resumed = Telemetry(attempt=1, epochs=20), Telemetry(attempt=2, epochs=20)
    for epoch in range(1, 11):
        uncut.observe(replace(EPOCH, epoch=epoch))
    uncut.advance(10)
    uncut.observe(replace(EPOCH, epoch=1))
    resumed.advance(10)
    resumed.take_up(uncut.seconds, replace(EPOCH, epoch=1))
    assert resumed.progress().eta_seconds == uncut.progress().eta_seconds == 18


def test_epochs_that_a_trial_left_out_took_no_time() -> None:
    telemetry = Telemetry(attempt=1, epochs=20)
    telemetry.observe(replace(EPOCH, epoch=1))  # two seconds; this trial ends early
    telemetry.advance(10)
    telemetry.observe(replace(EPOCH, epoch=1))
    assert (telemetry.progress().epoch, telemetry.progress().eta_seconds) == (11, 18)
