"""One of two processes is killed: the other ends by itself and says why. Both are told to stop: they save at one step, and a later attempt
goes on to the very bits of a training that was never stopped."""

import signal
from pathlib import Path
from typing import Any

import pytest
from dropout_testing.ranks import Asked, Outcome, outcome

from dropout_api.names import ExitCode

SPEC: dict[str, Any] = {
    "model": {"factory": "dropout_testing.ranks:normed"}, "data": {"factory": "dropout_testing.ranks:data", "args": {"val": 60}},
    "resourcesPerNode": {"limits": {"cpu": "1"}}, "processesPerNode": 2,
    "checkpoint": {"volumeClaim": "c", "everyEpochs": 1, "everySteps": 2},
    "training": {"epochs": 3, "batchSize": 16, "earlyStopping": {"patience": 3}},
}
"""Seven steps an epoch."""


def points(curve: list[tuple[int, dict[str, float]]]) -> dict[tuple[str, int], float]:
    """Those that two attempts have told must be equal."""
    told: dict[tuple[str, int], float] = {}
    for step, values in curve:
        for name, value in values.items():
            assert told.setdefault((name, step), value) == value
    return told


@pytest.mark.parametrize("rank", ["0", "1"])
def test_killed(rank: str, tmp_path: Path) -> None:
    result = outcome(Asked(SPEC, str(tmp_path / "out"), str(tmp_path / "checkpoints"), signals={rank: (9, signal.SIGKILL, False)}))
    assert result.code == 128 + signal.SIGKILL
    assert (result.report["reason"], result.report["message"][:33]) == ("ProcessKilled", f"the process of rank {rank} was ended b")
    lines = [line for line in result.log.splitlines() if "another process of this training went away" in line]
    assert len(lines) == 1, result.log
    assert "Traceback" not in result.log


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome(Asked(SPEC, str(tmp_path_factory.mktemp("whole") / "out")))


@pytest.mark.parametrize(("rank", "to_launcher"), [("0", True), ("1", False)])
def test_stopped_and_gone_on(rank: str, to_launcher: bool, whole: Outcome, tmp_path: Path) -> None:
    out, checkpoints = str(tmp_path / "stopped"), str(tmp_path / "checkpoints")
    first = outcome(Asked(SPEC, out, checkpoints, 1, {rank: (10, signal.SIGTERM, to_launcher)}))
    assert (first.code, first.report["reason"]) == (ExitCode.PREEMPTED, "Preempted"), first.log
    assert "its checkpoint is saved" in first.report["message"]
    assert first.log.count("Preempted") == 2  # each says so
    second = outcome(Asked(SPEC, out, checkpoints, 2))
    assert second.code == 0, second.log
    assert ": epoch 2, batch 3" in second.log
    assert points(second.curve) == points(whole.curve)
    assert second.weights == whole.weights
