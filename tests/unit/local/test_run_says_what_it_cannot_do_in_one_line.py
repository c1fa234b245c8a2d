"""A wrong manifest, a missing file and a wrong argument end `dropout run` before torch is loaded, each with its own exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from dropout_api.names import ExitCode
from dropout_api.spec import JobSpec
from dropout_trainer.cli import main
from dropout_trainer.local.ignored import ignored

HEAD = "apiVersion: training.dropout.dev/v1alpha1\nkind: DropoutTrainingJob\nmetadata: {name: job}\nspec:\n"
TWICE_WRONG = HEAD + "  model: {factory: mpl}\n  data: {factory: sklearn, args: {name: digits}}\n  seed: -1\n"
INTERRUPTED_TWICE = """
import os, signal, threading
from dropout_trainer.train.ending import Terminated, stoppable
with stoppable():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except Terminated as end:
        print(end.exit_code, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)  # ignored: something is being saved
        print("saving", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
        print("never", flush=True)
"""


def test_all_mistakes_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(TWICE_WRONG)
    assert main(["run", "--home", str(tmp_path / "home"), str(tmp_path / "job.yaml")]) == ExitCode.SPEC_INVALID
    out = capsys.readouterr().out
    assert "job: 2 problems" in out
    assert "spec.model.factory" in out
    assert "spec.seed" in out
    assert not (tmp_path / "home").exists()


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "nothing.yaml")]) == ExitCode.DATA_MISSING
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("volume", ["datasets", "=here", "datasets="])
def test_a_volume_has_a_name_and_a_folder(volume: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "--volume", volume, "job.yaml"])
    assert end.value.code == ExitCode.USAGE
    assert "is not NAME=FOLDER" in capsys.readouterr().err


def test_what_only_a_cluster_does_is_named() -> None:
    spec = {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}}
    assert ignored(JobSpec.model_validate(spec | {"resourcesPerNode": {"requests": {"cpu": 1}}, "checkpoint": {"volumeClaim": "c"}})) == []
    more = {"image": "a/b:c", "suspend": True, "nodes": 2, "podTemplate": {"nodeSelector": {"gpu": "yes"}, "env": [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}}
    assert ignored(JobSpec.model_validate(spec | more)) == [
        "spec.image", "spec.nodes", "spec.suspend", "spec.podTemplate.nodeSelector", "spec.podTemplate.env[].valueFrom"]


def test_a_second_ctrl_c_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_TWICE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (130, ["130", "saving"], "")
