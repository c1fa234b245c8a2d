"""The example in plain PyTorch, as a job starts it: `dropout train` runs it as a child against MLflow's own store, the gate passes what it
hands over, and killed with SIGKILL it goes on to the same curve and the same weights, to the bit. However such a program ends, the stage
has its exit code and one line.

Each attempt is a process that does the whole stage.
"""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dropout_testing import own_loops
from dropout_testing.processes import wait_until
from mlflow import MlflowClient

from dropout_api.names import ExitCode
from dropout_api.task import VerifyTask
from dropout_trainer.verify.run import verify

EXAMPLES = Path(__file__).parents[2] / "examples/own-loop"
EPOCHS = 4
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with own_loops.store(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture(scope="module")
def whole(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run of a job that was not cut off."""
    task = told(client)
    code, report, log = own_loops.stage(task, tmp_path_factory.mktemp("whole"), EXAMPLES)
    assert (code, report["reason"], report["epoch"]) == (0, "Trained", EPOCHS), log
    return str(task["run"]["id"])


def spec() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "plain.yaml").read_text())["spec"]
    return {**found, "command": [sys.executable, "plain.py"], "training": {"epochs": EPOCHS}, "gate": []}


def told(client: MlflowClient, attempt: int = 1, checkpoints: Path | None = None, run: str | None = None) -> dict[str, Any]:
    wanted = spec()
    return own_loops.task(wanted.pop("command"), run or own_loops.new_run(client), attempt, checkpoints, **wanted)


def curve(client: MlflowClient, run: str) -> dict[str, list[tuple[int, float]]]:
    names = ("train_loss", "val_loss", "val_gap", "test_loss", "test_accuracy")
    return {name: [(point.step, point.value) for point in client.get_metric_history(run, name)] for name in names}


def weights(client: MlflowClient, run: str, folder: Path) -> str:
    folder.mkdir()
    path = client.download_artifacts(run, "candidate/weights.safetensors", str(folder))
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_what_it_hands_over_becomes_a_version(client: MlflowClient, whole: str) -> None:
    assert [step for step, _ in curve(client, whole)["val_gap"]] == list(range(1, EPOCHS + 1))
    wanted = {**spec(), "resourcesPerNode": {"limits": {"cpu": "1"}}}
    run = {"id": whole, "experimentId": "1"}
    verdict = verify(VerifyTask.model_validate({"job": own_loops.JOB, "run": run, "spec": wanted}), client)
    assert verdict.verdict == "Passed", verdict.message
    assert verdict.model_uri == "models:/team.own/1"


def test_killed_it_goes_on_to_the_same_curve_and_weights(client: MlflowClient, whole: str, tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    cut = told(client, checkpoints=checkpoints)
    run = cut["run"]["id"]
    with own_loops.started(cut, tmp_path / "first.json", EXAMPLES) as process:
        wait_until("a checkpoint", lambda: any(checkpoints.glob("*.manifest.json")), process=process)
        process.kill()  # its child goes with it
    code, _, log = own_loops.stage(told(client, 2, checkpoints, run), tmp_path, EXAMPLES)
    assert code == 0, log
    assert "goes on from checkpoint" in log
    assert curve(client, run) == curve(client, whole)
    assert weights(client, run, tmp_path / "cut") == weights(client, whole, tmp_path / "whole")


def test_sigterm_saves_and_is_a_preemption(client: MlflowClient, tmp_path: Path) -> None:
    checkpoints, report = tmp_path / "checkpoints", tmp_path / "report.json"
    with own_loops.started(told(client, 1, checkpoints), report, EXAMPLES) as process:
        wait_until("a checkpoint", lambda: any(checkpoints.glob("*.manifest.json")), process=process)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == ExitCode.PREEMPTED
    assert '"reason":"Preempted"' in report.read_text()


TWO = """
import os, signal, torch
from dropout_trainer.loop import start
job = start()
torch.distributed.init_process_group("gloo")
model = torch.nn.Linear(2, 2)
for epoch in range(job.resume(model) + 1, job.epochs + 1):
    job.log(epoch)
    if epoch == 2 and job.rank == 1:  # which saves nothing itself
        os.kill(os.getpid(), signal.SIGTERM)
    job.save(epoch)
    torch.distributed.barrier()
"""


def test_sigterm_to_one_of_two_processes_saves_and_ends_both(client: MlflowClient, tmp_path: Path) -> None:
    wanted = {"processesPerNode": 2, "training": {"epochs": 5}, "checkpoint": {"volumeClaim": "c", "everyEpochs": 5}}
    task = own_loops.task([sys.executable, "-c", TWO], own_loops.new_run(client), 1, tmp_path / "checkpoints", **wanted)
    code, report, log = own_loops.stage(task, tmp_path)
    assert (code, report["reason"]) == (ExitCode.PREEMPTED, "Preempted"), log
    assert "after epoch 2 of 5; its checkpoint is saved" in report["message"]
    assert len(list((tmp_path / "checkpoints").glob("*.manifest.json"))) == 1


DRAWING = """
import os, signal, torch
from dropout_trainer.loop import start
job = start()
torch.distributed.init_process_group("gloo")
model = torch.nn.Linear(2, 2)
for epoch in range(job.resume(model) + 1, job.epochs + 1):
    os.write(1, f"drawn rank {job.rank} epoch {epoch} {torch.rand(1).item()}\\n".encode())  # at once: both write to one pipe
    job.log(epoch)
    job.save(epoch)
    if job.keeper:
        job.keeper.wait()
    torch.distributed.barrier()
    if epoch == int(os.environ["KILLED_AFTER"]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_two_processes_go_on_with_the_random_streams_of_each(client: MlflowClient, tmp_path: Path) -> None:
    def drawn(folder: str, *killed_after: int) -> list[str]:
        (tmp_path / folder).mkdir()
        run, lines, logs = own_loops.new_run(client), set[str](), ""
        for attempt, epoch in enumerate(killed_after, 1):
            argv = [sys.executable, "-c", DRAWING]
            told = own_loops.task(argv, run, attempt, tmp_path / folder, processesPerNode=2, training={"epochs": 4})
            _, _, log = own_loops.stage(told, tmp_path, KILLED_AFTER=str(epoch))
            lines |= {line for line in log.splitlines() if line.startswith("drawn")}
            logs += log
        assert ("goes on from checkpoint" in logs) == (len(killed_after) > 1)
        return sorted(lines)

    whole = drawn("whole", 0)
    assert len(whole) == 8
    assert drawn("parts", 2, 0) == whole


STARTED = "import os; from dropout_trainer.loop import start; job = start(); "
ABORTS_AT_ITS_END = "import os; kept = type('Kept', (), {'__del__': lambda self, abort=os.abort: abort()})(); "
"""As the interpreter does, at times, where torch.distributed still has threads."""


@pytest.mark.parametrize(("program", "code", "reason", "words"), [
    ("import sys; sys.exit(3)", ExitCode.USER_CODE, "UserCode", "ended with exit code 3; its log says why"),
    ("pass", ExitCode.USER_CODE, "NothingExported", "call job.export(model"),
    (ABORTS_AT_ITS_END + STARTED, ExitCode.USER_CODE, "NothingExported", "has ended well, but it exported no model"),
    (STARTED + "os.abort()", 128 + signal.SIGABRT, "ProcessKilled", "the process of rank 0 was ended by SIGABRT"),
    (STARTED + "raise ValueError('no such digit')", ExitCode.USER_CODE, "UserCode", "spec.command: ValueError: no such digit"),
    (STARTED + "import signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)", 143, "Terminated", "stopped by SIGTERM"),
])
def test_however_it_ends(program: str, code: int, reason: str, words: str, client: MlflowClient, tmp_path: Path) -> None:
    task = own_loops.task([sys.executable, "-c", program], own_loops.new_run(client), dropout={"rate": 0.1})
    ended, report, log = own_loops.stage(task, tmp_path)
    assert (ended, report["reason"]) == (code, reason), log
    assert words in report["message"]
    assert log.count(f"{reason}: ") == 1


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    code, report, _ = own_loops.stage(own_loops.task(["no-such-program"]), tmp_path)
    assert (code, report["reason"]) == (ExitCode.USER_CODE, "UserCode")
    assert "no-such-program cannot be started" in report["message"]


def test_outside_of_a_job_it_says_how_to_start_one(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DROPOUT_")}
    command = [sys.executable, "-c", "from dropout_trainer.loop import start; start()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == ExitCode.USAGE
    assert "Traceback" not in done.stderr
    assert "spec.command of a manifest, and start that with `dropout run job.yaml`" in done.stderr
