"""What a manifest sets for its training, as PYTHONPATH, must not reach the verifier: a module found there could be anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dropout_api.report import VerifyReport
from dropout_api.spec import JobSpec
from dropout_api.task import RunRef
from dropout_trainer.local import job, stages
from dropout_trainer.local.home import Home, Key

SPEC = JobSpec.model_validate({"command": ["true"]})
RUN = RunRef(id="a" * 32, experiment_id="1")


class Runs:
    """In the place of MLflow."""

    def __init__(self, _home: Home) -> None: ...
    def ensure(self, *_: object) -> RunRef:
        return RUN

    def mark(self, *_: object) -> None: ...


@contextmanager
def environment() -> Iterator[None]:
    os.environ["PYTHONPATH"] = "/the/users"
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]


def test_variables_of_the_pod_are_the_trainings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def verify(_task: object) -> VerifyReport:
        seen["verifier"] = os.environ.get("PYTHONPATH")
        return VerifyReport(stage="verify", verdict="Passed")

    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(job, "Runs", Runs)
    monkeypatch.setattr(stages, "run_command", lambda _: seen.update(training=os.environ.get("PYTHONPATH")))
    monkeypatch.setattr(stages, "verify", verify)
    home, key = Home(tmp_path), Key.of("default", "mine", SPEC)
    job.Job(home, key, job.Wanted("default", "mine", SPEC, SPEC, environment()), again=False).to_verdict()

    assert seen == {"training": "/the/users", "verifier": None}
