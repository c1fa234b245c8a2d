"""`dropout run` of a manifest that asks for a GPU: trained there, judged on the CPU, registered, recorded with the device, and trained
again to the same bits. Every command is a process, as a user starts it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dropout_testing.device import GPU
from mlflow import MlflowClient

from dropout_api.names import ExitCode
from dropout_trainer.train.tracking.machine import gpus

SPEC: dict[str, Any] = {
    "model": {"factory": "cnn", "args": {"channels": [16, 32], "dense": 64}}, "data": {"factory": "sklearn", "args": {"name": "digits"}},
    "dropout": {"layers": [{"match": "features.*", "kind": "Spatial", "rate": 0.1}, {"match": "classifier.*", "rate": 0.4}]},
    "training": {"epochs": 4, "batchSize": 64}, "resourcesPerNode": {"limits": GPU}, "gate": [{"metric": "accuracy", "min": 0.9}],
}


def dropout(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "dropout_trainer", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def manifest(folder: Path, name: str, **changes: Any) -> str:
    path = folder / f"{name}.yaml"
    job = {"apiVersion": "training.dropout.dev/v1alpha1", "kind": "DropoutTrainingJob", "metadata": {"name": name}, "spec": SPEC | changes}
    path.write_text(yaml.safe_dump(job))
    return str(path)


@pytest.mark.parametrize("training", [
    {}, {"precision": "Float16", "gradientClipNorm": 1.0}, {"precision": "BFloat16"}, {"compile": True},
    {"optimizer": {"name": "RMSprop"}}, {"optimizer": {"name": "SGD", "learningRate": 0.1}},
], ids=lambda training: "-".join(map(str, training)) or "plain")
def test_it_becomes_a_version_and_repeats_to_the_bit(training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, log = dropout("run", "--home", str(tmp_path / "home"), manifest(tmp_path, "digits", training=SPEC["training"] | training))
    assert code == 0, log
    uri = f"sqlite:///{tmp_path}/home/mlflow.db"
    client = MlflowClient(uri, uri)
    run = client.get_run(client.get_model_version("default.digits", "1").tags["dropout.run_id"])
    params = run.data.params
    assert params["device"] == "cuda"
    assert params["gpu"]
    assert {value for name, value in params.items() if re.fullmatch(r"dropout\..+\.implementation", name)} == {"Native"}

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, out = dropout("reproduce", run.info.run_id, "--json")
    found = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert (code, found["outcome"]) == (0, "equal"), found


def test_the_gpu_is_looked_at_where_there_is_memory_of_ours() -> None:
    held = torch.zeros(1 << 20, device="cuda")
    found = gpus()
    assert found["gpu_0_memory_usage_megabytes"] >= held.nbytes / 1e6
    assert 0 < found["gpu_0_memory_usage_percentage"] < 100


def test_running_out_of_memory_names_the_field(tmp_path: Path) -> None:
    model = {"factory": "dropout_testing.device:greedy"}
    code, log = dropout("run", "--home", str(tmp_path / "home"), manifest(tmp_path, "large", model=model, dropout={"rate": 0.1}))
    assert code == ExitCode.USER_CODE, log
    assert "the GPU is out of memory; lower spec.training.batchSize" in log
    assert "Traceback" not in log
