"""The processes of a node get torchrun's environment, its signals and one end: that of whoever failed first, whoever noticed first."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dropout_api.names import NODE_RANK, Env, ExitCode, Torchrun
from dropout_api.spec import JobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.launch import Layout, launch

LAUNCHER = "import sys; from dropout_trainer.train.launch import *; sys.exit(launch([sys.executable, '-c', sys.argv[1]], Layout(2)))"
PAUSE = "import os, signal, sys\nrank = os.environ['RANK']\n"
"""Before a program of a rank: signal.pause() then waits for as long as it takes."""

TELL = "os.write(1, b'%d\\n' % os.getpid())"
"""In one piece, where print takes two when Python does not buffer."""


@pytest.fixture(autouse=True)
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(Env.TERMINATION_LOG, str(tmp_path / "termination-log"))
    for name in (*Torchrun, NODE_RANK):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "termination-log"


def run(program: str, layout: Layout = Layout(2)) -> int:  # noqa: B008 - it cannot be changed
    return launch([sys.executable, "-c", PAUSE + program], layout)


def test_each_has_torchruns_environment(tmp_path: Path) -> None:
    program = f"import json; open(f'{tmp_path}/{{rank}}', 'w').write(json.dumps(dict(os.environ)))"
    assert run(program, Layout(2, nodes=3, node=1, address="first", port=29500)) == 0
    told = [json.loads((tmp_path / rank).read_text()) for rank in ("2", "3")]
    assert [{name: process[name] for name in Torchrun} for process in told] == [
        {"RANK": str(rank), "LOCAL_RANK": str(rank - 2), "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1",
         "MASTER_ADDR": "first", "MASTER_PORT": "29500"}
        for rank in (2, 3)
    ]


def test_on_one_node_they_meet_at_one_free_port(tmp_path: Path) -> None:
    assert run(f"open(f'{tmp_path}/{{rank}}', 'w').write(os.environ['MASTER_PORT'])") == 0
    first, second = ((tmp_path / rank).read_text() for rank in "01")
    assert first == second != "0"


def test_each_sees_the_slice_of_a_gpu_that_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert run(f"open(f'{tmp_path}/{{rank}}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])") == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["MIG-a", "MIG-b"]


@pytest.mark.parametrize(("program", "code"), [
    ("sys.exit(70) if rank == '1' else signal.pause()", 70),
    ("os.kill(os.getpid(), signal.SIGKILL) if rank == '0' else signal.pause()", 137),
    ("sys.exit(0) if rank == '1' else sys.exit(71)", 71),
])
def test_one_that_fails_ends_the_other_and_tells_the_code(program: str, code: int) -> None:
    assert run(program) == code


def test_to_have_lost_a_peer_explains_nothing_when_another_can(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")
    fails_when_told = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(71)); open('{tmp_path}/ready', 'w').close(); signal.pause()"
    lost_its_peer = f"open('{tmp_path}/ready').close(); sys.exit(76)"
    assert run(f"exec({lost_its_peer!r} if rank == '0' else {fails_when_told!r})") == 71
    assert run("sys.exit(76) if rank == '0' else signal.pause()") == ExitCode.PEER_LOST


def test_to_have_saved_counts_for_more_than_to_have_been_stopped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")
    saves_when_told = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); open('{tmp_path}/ready', 'w').close(); signal.pause()"
    stopped = f"open('{tmp_path}/ready').close(); os.kill(os.getpid(), signal.SIGTERM)"
    assert run(f"exec({stopped!r} if rank == '0' else {saves_when_told!r})") == ExitCode.PREEMPTED


def test_a_preemption_from_outside_leaves_the_others_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropout_trainer.train.launch.GRACE_SECONDS", 0)
    os.mkfifo(tmp_path / "ready")
    first = f"""
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
pipe = open('{tmp_path}/ready', 'w')
os.kill(os.getppid(), signal.SIGTERM)
signal.pause()
"""
    last = f"""
import subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pipe = open('{tmp_path}/ready')
signal.sigwait([signal.SIGTERM])
pipe.read()  # until the other has ended
subprocess.run([sys.executable, '-c', 'import email.message'])
open('{tmp_path}/saved', 'w').close()
sys.exit(75)
"""
    assert run(f"exec({first!r} if rank == '0' else {last!r})") == ExitCode.PREEMPTED
    assert (tmp_path / "saved").exists()


def test_the_report_is_that_of_the_one_that_failed(report: Path) -> None:
    program = f"open(os.environ['{Env.TERMINATION_LOG}'], 'w').write(rank)\nif rank == '1': sys.exit(70)\nsignal.pause()"
    assert run(program) == 70
    assert report.read_text() == "1"


def test_the_report_of_one_that_was_killed_says_so(report: Path) -> None:
    assert run("os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else signal.pause()") == 137
    told = json.loads(report.read_text())
    assert told["reason"] == "ProcessKilled"
    assert told["message"].startswith("the process of rank 1 was ended by SIGKILL")


def test_when_all_end_well_rank_0_has_the_word(report: Path) -> None:
    assert run(f"open(os.environ['{Env.TERMINATION_LOG}'], 'w').write(rank)") == 0
    assert report.read_text() == "0"


def started(program: str) -> "tuple[subprocess.Popen[str], list[int]]":
    """A launcher as a process of its own, and the process ids that its ranks have printed."""
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, PAUSE + program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, [int(process.stdout.readline()) for _ in range(2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_on_to_all(number: signal.Signals) -> None:
    program = f"signal.signal({int(number)}, lambda *_: sys.exit(75))\n{TELL}\nsignal.pause()"
    process, _ = started(program)
    with process:
        process.send_signal(number)
        assert process.wait() == ExitCode.PREEMPTED


def test_what_a_shell_leaves_behind_hears_sigterm_and_is_waited_for(report: Path) -> None:
    saves = f"open(os.environ['{Env.TERMINATION_LOG}'], 'w').write('saved'); sys.exit(75)"
    trains = f"{PAUSE}signal.signal(15, lambda *_: exec({saves!r})); {TELL}; signal.pause()"
    script = '"$0" -c "$1"; true'
    process, _ = started(f"os.execv('/bin/sh', ['sh', '-c', {script!r}, sys.executable, {trains!r}])")
    with process:
        process.terminate()
        assert process.wait() == ExitCode.PREEMPTED
    assert report.read_text() == "saved"


def test_a_programs_own_children_are_not_told_before_it_has_saved() -> None:
    """A worker that dies is an error to the loader, and the program would end with that instead."""
    program = f"""
import subprocess
worker = subprocess.Popen(['sleep', '600'])
def save(*_):
    code = 75 if worker.poll() is None else 70
    worker.kill()
    worker.wait()
    sys.exit(code)
signal.signal(signal.SIGTERM, save)
{TELL}
signal.pause()
"""
    process, _ = started(program)
    with process:
        process.terminate()
        assert process.wait() == ExitCode.PREEMPTED


def test_the_children_of_one_that_crashed_are_not_left(tmp_path: Path) -> None:
    crashes = f"""
import pathlib, subprocess
pathlib.Path('{tmp_path}/worker').write_text(str(subprocess.Popen(['sleep', '600']).pid))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(f"exec({crashes!r}) if rank == '0' else signal.pause()") == 137
    assert not Path("/proc", (tmp_path / "worker").read_text()).exists()


def test_when_the_launcher_dies_nothing_is_left() -> None:
    process, ranks = started(f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{TELL}\nsignal.pause()")
    with process:
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == ""  # the end of the pipe that all three held
    assert not [rank for rank in ranks if Path(f"/proc/{rank}/cmdline").exists() and Path(f"/proc/{rank}/cmdline").read_bytes()]


def test_one_that_cannot_be_started_is_a_wrong_command() -> None:
    with pytest.raises(StageFailure, match=r"spec\.command: nonsense cannot be started"):
        launch(["nonsense"], Layout(2))


def layout(environ: dict[str, str], **spec: Any) -> Layout:
    return Layout.of(JobSpec.model_validate({"command": ["a"], **spec}), environ)


def test_the_layout_is_what_the_spec_and_the_job_controller_say() -> None:
    gpus = {"limits": {"nvidia.com/mig-1g.10gb": 4}}
    environ = {NODE_RANK: "2", Torchrun.MASTER_ADDR.value: "first", Torchrun.MASTER_PORT.value: "1"}
    assert layout(environ, nodes=3, resourcesPerNode=gpus) == Layout(4, 3, 2, "first", 1)
    assert layout({}, processesPerNode=2) == Layout(2)


def test_several_nodes_are_not_started_by_hand() -> None:
    with pytest.raises(StageFailure, match=r"spec\.nodes is 2, but JOB_COMPLETION_INDEX and MASTER_ADDR are not set here"):
        layout(dict(os.environ), nodes=2)
