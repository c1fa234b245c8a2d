"""From the start of a training's process to its first step, and the most memory that it takes, torch included: digits with an mlp."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from operator_load import Figure

SECONDS, MEBIBYTES = 6.0, 700
SPEC = {
    "model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}, "training": {"epochs": 3},
    "resourcesPerNode": {"requests": {"cpu": "1"}},
}


def figures() -> list[Figure]:
    seconds, mebibytes = _trained()
    return [
        Figure("training: process start to first step", f"{seconds:.1f} s", f"< {SECONDS:.0f} s", seconds < SECONDS),
        Figure("training: peak memory, digits mlp", f"{mebibytes:.0f} MiB", f"< {MEBIBYTES} MiB", mebibytes < MEBIBYTES),
    ]


def _trained() -> tuple[float, float]:
    """Seconds to the first step: to the line of the first epoch, less the seconds that it says it took. Peak memory in MiB."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(prefix="cold-start-") as name:
        folder = Path(name)
        uri = f"sqlite:///{folder}/mlflow.db"
        client = MlflowClient(uri, uri)
        experiment = client.create_experiment("cold-start", artifact_location=f"{folder}/artifacts")
        run = {"id": client.create_run(experiment).info.run_id, "experimentId": experiment}
        task = {"job": {"cluster": "c", "namespace": "n", "name": "digits", "uid": "u"}, "attempt": 1, "run": run, "spec": SPEC}
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": uri, "DROPOUT_TASK": json.dumps(task), "DROPOUT_TERMINATION_LOG": str(folder / "said")}
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "dropout_trainer", "train"], env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        lines = ((time.monotonic() - started, line) for line in process.stderr)
        at, line = next((at, line) for at, line in lines if line.startswith("epoch 1/"))
        process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0
    return at - float(line.split()[-1].removesuffix("s")), used.ru_maxrss / 1024
