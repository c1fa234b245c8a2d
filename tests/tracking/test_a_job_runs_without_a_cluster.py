"""`dropout run`: a manifest becomes a version in an SQLite MLflow; interrupted at any moment, the same command goes on, and every step of
every metric is in one run's history exactly once.

MLflow, the verifier and the signals are real.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow import MlflowClient

from dropout_api.names import ExitCode, Tag
from dropout_trainer.cli import main
from dropout_trainer.local import stages
from dropout_trainer.train import run
from dropout_trainer.train.precision import Step

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 3, 8
"""Steps of an epoch."""
SPEC: dict[str, Any] = {
    "model": {"factory": "mlp", "args": {"hidden": [8]}}, "data": {"factory": "sklearn", "args": {"name": "wine"}},
    "training": {"epochs": EPOCHS, "batchSize": 16}, "dropout": {"rate": 0.25}, "resourcesPerNode": {"requests": {"cpu": 1}},
}
STOPPING_VERIFIER = (sys.executable, "-c", f"import os, signal; os.kill(os.getppid(), {signal.SIGINT:d}); signal.pause()")


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "path", sys.path[:])
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


class Laptop:
    """A folder with manifests and a home."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.home = folder, folder / "home"
        self.uri = f"sqlite:///{self.home}/mlflow.db"

    def manifest(self, name: str, **changes: Any) -> str:
        path = self._folder / f"{name}.yaml"
        job = {"apiVersion": "training.dropout.dev/v1alpha1", "kind": "DropoutTrainingJob", "metadata": {"name": name}}
        path.write_text(yaml.safe_dump(job | {"spec": changes if "from" in changes else SPEC | changes}))
        return str(path)

    def run(self, file: str, *options: str) -> int:
        return main(["run", "--home", str(self.home), *options, file])

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    def runs(self, name: str) -> list[Any]:
        client = self.client
        experiment = client.get_experiment_by_name(f"default.{name}")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    def history(self, run_id: str) -> dict[str, list[int]]:
        names = self.client.get_run(run_id).data.metrics
        return {name: sorted(point.step for point in self.client.get_metric_history(run_id, name)) for name in names}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop(tmp_path_factory.mktemp("laptop"))


@pytest.fixture(scope="module")
def trained(laptop: Laptop) -> str:
    """The id of a run that became version 1 of `wine`, alias champion."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://nobody.invalid")
        patched.setenv("MLFLOW_REGISTRY_URI", "")
        assert laptop.run(laptop.manifest("wine", export={"alias": "champion"})) == 0
    return str(laptop.runs("wine")[0].info.run_id)


def stop(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


class StartedAmidCtrlC(subprocess.Popen):  # type: ignore[type-arg]
    """It arrives when the process runs and nobody knows of it yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stop()


def stop_at(step: int) -> Callable[[Step], None]:
    update, steps = Step.update, iter(range(1, 1000))

    def update_then_stop(self: Step) -> None:
        update(self)
        if next(steps) == step:
            stop()

    return update_then_stop


def test_the_version_and_the_run_are_those_of_a_cluster(laptop: Laptop, trained: str) -> None:
    version = laptop.client.get_model_version_by_alias("default.wine", "champion")
    assert (str(version.version), version.run_id, version.tags[Tag.VERDICT]) == ("1", trained, "Passed")
    (found,) = laptop.runs("wine")
    assert (found.info.status, found.data.tags[Tag.PHASE], found.data.tags[Tag.CLUSTER]) == ("FINISHED", "Succeeded", "local")
    assert found.data.tags[Tag.MESSAGE] == "registered models:/default.wine/1"
    assert set(map(tuple, [laptop.history(trained)["val_loss"]])) == {tuple(range(1, EPOCHS + 1))}


def test_a_finished_job_is_only_told(laptop: Laptop, trained: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(stages, "train", None)
    monkeypatch.setattr(stages, "verify", None)
    assert laptop.run(laptop.manifest("wine", export={"alias": "champion"})) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["wine is finished; --again trains it anew", "registered models:/default.wine/1"]


def test_a_changed_spec_and_again_are_new_runs(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "prepare", stop)
    for runs, seed, options in ((1, 1, ()), (1, 1, ()), (2, 2, ()), (3, 2, ("--again",)), (3, 2, ())):
        assert laptop.run(laptop.manifest("changed", seed=seed), *options) == 128 + signal.SIGINT
        assert len(laptop.runs("changed")) == runs


def test_an_earlier_run_is_verified_again_and_gives_its_weights(
    laptop: Laptop, trained: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    assert laptop.run(laptop.manifest("again", **{"from": {"run": trained}, "export": {"model": "wine"}})) == 0
    again = laptop.runs("again")[0]
    assert again.data.tags[Tag.FROM_RUN] == trained
    assert laptop.run(laptop.manifest("twice", **{"from": {"run": again.info.run_id}})) == ExitCode.SPEC_INVALID
    assert f"it verified that of run {trained}; name that" in capsys.readouterr().err

    monkeypatch.setattr(Step, "update", stop_at(1))
    tuned = {"factory": "mlp", "args": {"hidden": [8]}, "weights": {"model": "wine", "alias": "champion"}}
    assert laptop.run(laptop.manifest("tuned", model=tuned)) == ExitCode.PREEMPTED
    assert "weights  " in capsys.readouterr().err
    tuned["weights"] = {"model": "wine", "version": 9}
    assert laptop.run(laptop.manifest("tuned", model=tuned)) == ExitCode.DATA_MISSING
    assert "there is no model 'default.wine' with version 9" in capsys.readouterr().err


def test_interrupted_at_any_moment_it_goes_on(laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = laptop.manifest("restless")
    moments: list[tuple[object, str, object, int, str]] = [
        (run, "prepare", stop, 130, "before its first epoch"),
        (Step, "update", stop_at(STEPS + 3), ExitCode.PREEMPTED, f"after epoch 1 of {EPOCHS}"),
        (run, "prepare", stop, ExitCode.PREEMPTED, "before its first epoch"),
        (run, "write_all", stop, ExitCode.PREEMPTED, f"after epoch {EPOCHS} of {EPOCHS}"),
        (stages, "VERIFIER", STOPPING_VERIFIER, ExitCode.PREEMPTED, "before its verdict"),
        (subprocess, "Popen", StartedAmidCtrlC, ExitCode.PREEMPTED, "before its verdict"),
    ]
    for owner, name, stopping, code, where in moments:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, stopping)
            assert laptop.run(file) == code, where
        told = capsys.readouterr().err
        assert f"interrupted {where}; the same command " in told
        assert "Traceback" not in told
        (found,) = laptop.runs("restless")
        assert found.info.status == "SCHEDULED"  # nothing looks as if it ran
    monkeypatch.setattr(stages, "train", None)  # what is left is to verify
    assert laptop.run(file) == 0
    (found,) = laptop.runs("restless")
    assert found.info.status == "FINISHED"
    history = laptop.history(found.info.run_id)
    assert {name: steps for name, steps in history.items() if not name.startswith("test_")} == {
        name: list(range(1, EPOCHS + 1)) for name in history if not name.startswith("test_")}
    assert {tuple(steps) for name, steps in history.items() if name.startswith("test_")} == {(EPOCHS,)}
    assert not (laptop.home / "checkpoints" / found.data.tags[Tag.UID]).exists()


def test_ctrl_c_of_a_real_process_leaves_no_traceback(laptop: Laptop) -> None:
    file = laptop.manifest("process", training={"epochs": 100_000, "batchSize": 16})
    command = [sys.executable, "-m", "dropout_trainer", "run", "--home", str(laptop.home), file]
    epochs = []
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        told = ""
        for line in process.stderr:
            told += line
            if line.startswith("epoch "):
                process.send_signal(signal.SIGINT)
                break
        told += process.stderr.read()
        process.stderr.close()
        assert process.stdout
        process.stdout.close()
        assert process.wait() == ExitCode.PREEMPTED, told
        assert "Traceback" not in told
        epochs.append([int(number) for number in re.findall(r"^epoch (\d+)/", told, re.MULTILINE)])
    assert epochs[0][0] == 1
    assert epochs[1][0] == epochs[0][-1] + 1


def test_a_rejected_model_is_named_with_its_fault_and_stays_rejected(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    sample = str(ROOT / "crds/samples/always-on-dropout.yaml")
    assert laptop.run(sample) == ExitCode.REJECTED
    told = capsys.readouterr().out
    assert "always-on-dropout is not registered: failed" in told
    assert "aten.dropout" in told
    assert laptop.client.search_registered_models("name = 'default.always-on-dropout'") == []
    (found,) = laptop.runs("always-on-dropout")
    assert (found.info.status, found.data.tags[Tag.PHASE]) == ("FAILED", "Rejected")
    monkeypatch.setattr(stages, "verify", None)
    assert laptop.run(sample) == ExitCode.REJECTED
