"""The examples' programs on a GPU: killed with SIGKILL at a checkpoint they go on to the weights of one that was not, and the gate, on
the CPU, passes what they hand over."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dropout_testing import own_loops
from dropout_testing.device import GPU
from dropout_testing.processes import wait_until
from mlflow import MlflowClient

from dropout_api.task import VerifyTask
from dropout_trainer.verify.run import verify

EXAMPLES = Path(__file__).parents[2] / "examples/own-loop"
EPOCHS = 4
PROGRAMS = {"plain": "plain.py", "lightning": "with_lightning.py", "hugging-face": "with_hugging_face.py"}
TO_THE_GPU = [  # which Lightning and Hugging Face's Trainer do by themselves
    ("train, val, test = digits()", "train, val, test = ([tensor.to(job.device) for tensor in part] for part in digits())"),
    ("job.apply(model)", "job.apply(model.to(job.device))"),
]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[MlflowClient]:
    with own_loops.store(tmp_path) as found:
        yield found


def program(name: str, folder: Path) -> Path:
    source = (EXAMPLES / PROGRAMS[name]).read_text()
    if name == "plain":
        for before, after in TO_THE_GPU:
            assert before in source
            source = source.replace(before, after)
    for file, text in ((PROGRAMS[name], source), ("digits.py", (EXAMPLES / "digits.py").read_text())):
        (folder / file).write_text(text)
    return folder / PROGRAMS[name]


def weights(client: MlflowClient, run: str, folder: Path) -> bytes:
    folder.mkdir()
    return Path(client.download_artifacts(run, "candidate/weights.safetensors", str(folder))).read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_it_goes_on_and_becomes_a_version(name: str, client: MlflowClient, tmp_path: Path) -> None:
    if name == "lightning":
        pytest.importorskip("lightning")
    wanted = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["spec"]
    changes = {"training": {"epochs": EPOCHS}, "gate": [], "resourcesPerNode": {"limits": {"cpu": "1", **GPU}}}
    spec: dict[str, Any] = {**wanted, "command": [sys.executable, program(name, tmp_path).name], **changes}
    runs = [own_loops.new_run(client) for _ in range(2)]
    checkpoints = tmp_path / "checkpoints"

    def told(run: str, attempt: int, where: Path | None) -> dict[str, Any]:
        rest = dict(spec)
        return own_loops.task(rest.pop("command"), run, attempt, where, **rest)

    code, _, log = own_loops.stage(told(runs[0], 1, None), tmp_path)
    assert code == 0, log
    with own_loops.started(told(runs[1], 1, checkpoints), tmp_path / "first.json", tmp_path) as process:
        wait_until("a checkpoint", lambda: any(checkpoints.glob("*.manifest.json")), process=process)
        process.kill()
    code, _, log = own_loops.stage(told(runs[1], 2, checkpoints), tmp_path)
    assert code == 0, log
    assert "goes on from checkpoint" in log
    assert client.get_run(runs[1]).data.params["device"].startswith("cuda")
    assert weights(client, runs[1], tmp_path / "cut") == weights(client, runs[0], tmp_path / "whole")
    verdict = verify(VerifyTask.model_validate({"job": own_loops.JOB, "run": {"id": runs[1], "experimentId": "1"}, "spec": spec}), client)
    assert verdict.verdict == "Passed", verdict.message
