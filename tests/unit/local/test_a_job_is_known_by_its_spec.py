"""The same manifest is the same job of a home; what a cluster would not let change makes another one. Two processes never run one."""

from pathlib import Path
from typing import Any

import pytest

from dropout_api.names import ExitCode
from dropout_api.spec import JobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.local.home import Home, Key, Record

SPEC: dict[str, Any] = {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}}


def key(**changes: Any) -> Key:
    return Key.of("default", "job", JobSpec.model_validate(SPEC | changes))


@pytest.mark.parametrize(("changes", "same"), [
    ({"training": {"epochs": 10}}, True),  # the default, written out
    ({"suspend": True}, True), ({"ttlSecondsAfterFinished": {"failed": 3}}, True), ({"podTemplate": {"labels": {"team": "a"}}}, True),
    ({"seed": 1}, False), ({"gate": [{"metric": "accuracy", "min": 0.5}]}, False), ({"export": {"alias": "champion"}}, False),
])
def test_what_may_change_in_place(changes: dict[str, Any], same: bool) -> None:
    assert (key(**changes) == key()) == same


def test_a_record_is_found_by_another_process(tmp_path: Path) -> None:
    record = Record.new().but(attempt=2, trained=True)
    Home(str(tmp_path)).write(key(), record)
    assert Home(str(tmp_path)).read(key()) == record
    assert Home(str(tmp_path)).read(key(seed=1)) is None


def test_a_torn_record_is_refused_and_one_that_was_not_finished_never_counts(tmp_path: Path) -> None:
    home = Home(str(tmp_path))
    (tmp_path / "jobs" / f"{key()}.tmp").write_text('{"ui')
    assert home.read(key()) is None
    (tmp_path / "jobs" / f"{key()}.json").write_text('{"ui')
    with pytest.raises(StageFailure, match="no record of a job; remove it"):
        home.read(key())


def test_one_at_a_time(tmp_path: Path) -> None:
    home = Home(str(tmp_path))
    with home.alone(key()), home.alone(key(seed=1)):
        with pytest.raises(StageFailure, match="another process runs this job") as failure, Home(str(tmp_path)).alone(key()):
            pass
        assert failure.value.exit_code is ExitCode.PREEMPTED
    with home.alone(key()):
        pass


@pytest.mark.parametrize("name", ["what?", "50%"])
def test_a_home_that_mlflow_could_not_open(tmp_path: Path, name: str) -> None:
    with pytest.raises(StageFailure, match="cannot; name another folder") as failure:
        Home(str(tmp_path / name))
    assert failure.value.exit_code is ExitCode.USAGE


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StageFailure, match=r"--home: .*file cannot be written") as failure:
        Home(str(tmp_path / "file"))
    assert failure.value.exit_code is ExitCode.CHECKPOINTS_UNAVAILABLE
