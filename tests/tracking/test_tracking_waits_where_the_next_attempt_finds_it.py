import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dropout_api.task import TrainTask
from dropout_trainer.train.checkpoints.folder import LocalFolder, folder_at, local_folder
from dropout_trainer.train.tracking import tracking_of


@pytest.fixture
def task(client: MlflowClient) -> Callable[[str | None], TrainTask]:
    def make(checkpoints: str | None) -> TrainTask:
        experiment = client.get_experiment_by_name("team.digits")
        assert experiment is not None
        run = client.create_run(experiment.experiment_id).info.run_id
        return TrainTask.model_validate({
            "job": {"cluster": "c", "namespace": "team", "name": "x", "uid": "u"}, "attempt": 1,
            "run": {"id": run, "experimentId": experiment.experiment_id}, "checkpoints": checkpoints,
            "spec": {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "wine"}}} | (
                {"checkpoint": {"volumeClaim": "c"}} if checkpoints else {}),
        })

    return make


@pytest.mark.parametrize(("uri", "place"), [("file://{}/job", "job/tracking"), ("{}/job", "job/tracking"), ("memory://job", "pod/tracking"),
                                            (None, "pod/tracking")])
def test_it_lies_beside_checkpoints_in_a_folder_else_in_the_pods_scratch(
    client: MlflowClient, task: Callable[[str | None], TrainTask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    uri: str | None, place: str,
) -> None:
    (tmp_path / "pod").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "pod"))
    what = task(uri.format(tmp_path) if uri else None)
    tracking = tracking_of(what)
    tracking.start()
    tracking.metrics({"val_loss": 0.5}, 1)
    tracking.unsent()()
    assert (tmp_path / place / what.run.id).is_dir()
    assert tracking.drain(60) == 0
    assert [point.step for point in client.get_metric_history(what.run.id, "val_loss")] == [1]


@pytest.mark.parametrize("uri", ["file://{}/a", "{}/a", "memory://a"])
def test_a_folder_of_the_records_is_one_of_the_checkpoints(tmp_path: Path, uri: str) -> None:
    assert (local_folder(uri.format(tmp_path)) is not None) is isinstance(folder_at(uri.format(tmp_path)), LocalFolder)
