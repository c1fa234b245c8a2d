"""Files that only their own code can load are run, on demand, where that code can do no harm.

Each payload tries something and says how it went by raising; what it would have changed is looked at from outside, too.
"""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy
import pytest
import torch
from dropout_testing import zoo
from torch import Tensor, nn

from dropout_api.verdict import Basis, Outcome, Verdict
from dropout_trainer.gate import cage, caged, sandbox
from dropout_trainer.gate.cage import Spec
from dropout_trainer.gate.caged import Limits
from dropout_trainer.gate.local import Options, judge_program
from dropout_trainer.gate.verdict import GateReport, RefusedError

pytestmark = pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="a cage is made by root")

REPORT = {"gateVersion": "2", "metrics": {}, "checks": [{"name": "graph", "outcome": "Passed", "basis": "Measured", "evidence": "x"}]}
PROBE = """
import json, os, socket
found = {}
def attempt(name, action):
    try:
        found[name] = f"done: {action()}"
    except Exception as error:
        found[name] = type(error).__name__
attempt("connect", lambda: socket.create_connection(("127.0.0.1", PORT), 5))
attempt("write", lambda: open(MARKER, "w").write("x"))
attempt("home", lambda: open(HOME + "/payload", "w").write("x"))
attempt("model", lambda: os.remove("/given/model/module.pt"))
attempt("system", lambda: open("/usr/payload", "w").write("x"))
attempt("kill", lambda: os.kill(PARENT, 9))
attempt("root", lambda: os.setuid(0))
attempt("secret", lambda: os.environ["AWS_SECRET_ACCESS_KEY"])
attempt("others", lambda: open(f"/proc/{PARENT}/environ").read())
attempt("first", lambda: open("/proc/1/environ").read())
attempt("mount", lambda: os.chroot("/scratch"))
raise RuntimeError(json.dumps(found))
"""
FORKS = """
import os, time
count = 0
while True:
    try:
        child = os.fork()
    except OSError:
        raise RuntimeError(f"{count} forks")
    if child == 0:
        os.setsid()
        time.sleep(3600)
    count += 1
"""
GREED = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(1 << 20) * 512)
        time.sleep(3600)
time.sleep(3600)
"""
FORGERY = """
import json, os, sys
print(FORGED, flush=True)
os.write(int(sys.argv[1]), json.dumps({"token": "0" * 32, "report": json.loads(FORGED)}).encode())
os._exit(CODE)
"""


class Payload:
    def __init__(self, source: str, **names: Any) -> None:
        self.source, self.names = source, names

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (self.source, self.names))


class AlwaysDropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, values: Tensor) -> Tensor:
        return self.second(nn.functional.dropout(self.first(values), 0.4))  # type: ignore[no-any-return]


def sound() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.4), nn.Linear(32, 4))


@pytest.fixture(autouse=True)
def _root() -> None:
    assert os.geteuid() == 0, "CI runs these as root"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    numpy.savez(tmp_path / "example.npz", torch.randn(4, 8).numpy())
    return tmp_path / "example.npz"


def judge_payload(payload: Payload, tmp_path: Path, limits: Limits = Limits()) -> str:  # noqa: B008 - frozen
    """What the report says; that it says nothing else is claimed here."""
    (tmp_path / "module.pt").write_bytes(pickle.dumps(payload))
    report = sandbox.judge(tmp_path / "module.pt", limits=limits)
    assert report.verdict is Verdict.COULD_NOT_RUN
    assert [check.name for check in report.checks] == ["sandbox"]
    return report.message


def found_in(report: GateReport) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in report.checks}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def test_a_payload_reaches_no_network_no_file_no_secret_and_no_process(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    marker = tmp_path / "marker"
    names = {"PORT": listener.getsockname()[1], "MARKER": str(marker), "HOME": str(Path.home()), "PARENT": os.getpid()}

    message = judge_payload(Payload(PROBE, **names), tmp_path)

    found = json.loads(message[message.index("{"):message.index("}") + 1])
    assert len(found) == 11
    assert not [attempt for attempt, how in found.items() if how.startswith("done")]
    assert "hush" not in message
    assert not marker.exists()
    assert not (Path.home() / "payload").exists()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_it_cannot_fork_for_ever(tmp_path: Path) -> None:
    message = judge_payload(Payload(FORKS), tmp_path, Limits(processes=40))

    forks = int(message.split(" forks")[0].split()[-1])
    assert 0 < forks < 40


def test_one_process_cannot_take_more_memory_than_it_is_given(tmp_path: Path) -> None:
    assert "MemoryError" in judge_payload(Payload("bytearray(20 << 30)"), tmp_path)


def test_many_cannot_do_so_together(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=3 << 30)

    assert "took more than 3072 MiB" in judge_payload(Payload(GREED), tmp_path, limits)


def test_it_cannot_write_without_end(tmp_path: Path) -> None:
    source = "with open('/scratch/big', 'wb') as file:\n    for _ in range(64): file.write(bytes(1 << 20))"

    assert "OSError" in judge_payload(Payload(source), tmp_path, Limits(scratch_bytes=32 << 20))


def test_one_that_never_ends_is_ended(tmp_path: Path) -> None:
    source = "import os, time\nif os.fork():\n    time.sleep(3600)\nos.setsid()\nif os.fork() == 0:\n    time.sleep(3600)"

    assert "had not ended after 20 s" in judge_payload(Payload(source), tmp_path, Limits(wall_seconds=20))


@pytest.mark.parametrize(("code", "words"), [(0, "another one than it was asked for"), (3, "ended with exit code 3; its last words: {")])
def test_a_forged_answer_is_no_answer(code: int, words: str, tmp_path: Path) -> None:
    assert words in judge_payload(Payload(FORGERY, FORGED=json.dumps(REPORT), CODE=code), tmp_path)


@pytest.mark.parametrize("report", [None, {"checks": 1}, {"checks": [{"name": "x"}]}, REPORT])
def test_nor_is_one_that_is_no_report_or_lacks_checks(report: Any) -> None:
    with pytest.raises(RefusedError, match=r"no report|without the check"):
        sandbox._believed(report)


def test_a_sound_pickle_passes_on_its_own_word(tmp_path: Path, example: Path) -> None:
    torch.save(sound().train(), tmp_path / "module.pt")

    report = sandbox.judge(tmp_path / "module.pt", Options(), example)

    assert report.passed, report.message
    assert {check.basis for check in report.checks if check.name != "sandbox"} == {Basis.ATTESTED}
    assert "word" in report.checks[-1].evidence


def test_one_whose_forward_always_drops_fails_with_op_and_layer(tmp_path: Path, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the class comes from a folder on the module path, as a user's own does
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "users_model.py").write_text(textwrap.dedent("""
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 4)
            def forward(self, values):
                return self.second(nn.functional.dropout(self.first(values), 0.4))
    """))
    monkeypatch.syspath_prepend(str(folder))
    import users_model  # type: ignore[import-not-found]

    torch.save(users_model.Net().train(), tmp_path / "module.pt")

    report = sandbox.judge(tmp_path / "module.pt", Options(), example)

    assert report.verdict is Verdict.FAILED
    assert ("aten.dropout", "Net") in [(check.where.op, check.where.layer) for check in report.failed if check.where]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_told_apart_too(tmp_path: Path, example: Path) -> None:
    torch.jit.script(sound()).save(tmp_path / "sound.pt")
    torch.jit.trace(AlwaysDropped(), torch.randn(4, 8), check_trace=False).save(tmp_path / "broken.pt")

    good, bad = (sandbox.judge(tmp_path / f"{name}.pt", Options(), example) for name in ("sound", "broken"))

    assert good.passed, good.message
    assert bad.verdict is Verdict.FAILED
    # a script keeps neither the names of its parts nor the op that an eager dropout is
    assert bad.failed[0].where
    assert bad.failed[0].where.op.startswith("aten.")


@pytest.mark.filterwarnings("ignore")
def test_an_mlflow_folder_brings_its_own_code_and_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code" / "brought_along.py"
    code.parent.mkdir()
    code.write_text("from torch import nn\nclass Net(nn.Sequential):\n    pass\n")
    monkeypatch.syspath_prepend(str(code.parent))
    import brought_along  # type: ignore[import-not-found]

    net = brought_along.Net(*sound())
    folder = tmp_path / "model"
    mlflow.pytorch.save_model(net, folder, code_paths=[str(code)], input_example=torch.randn(4, 8).numpy(), serialization_format="pickle")
    monkeypatch.undo()
    assert not [entry for entry in sys.path if entry == str(code.parent)]

    report = sandbox.judge(folder)

    assert report.passed, report.message
    assert found_in(report)["positive_control"] is Outcome.PASSED


@pytest.mark.filterwarnings("ignore")
def test_so_is_the_one_module_in_a_python_model(tmp_path: Path, example: Path) -> None:
    import mlflow.pyfunc

    class Predicts(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return self.net(torch.as_tensor(model_input)).detach().numpy()

    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Predicts(sound()))

    report = sandbox.judge(tmp_path / "model", Options(), example)

    assert report.passed, report.message


def test_a_user_without_rights_gets_the_same_cage(tmp_path: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python that others than root may run")
    status = os.pipe()
    root = Path(tempfile.mkdtemp())
    os.chown(root, 1000, 1000)
    command = ["/bin/sh", "-c", "id -u; echo x > /usr/x || echo x > /scratch/x && grep -c : /proc/net/dev; ls /"]
    readable = {path: path for path in ("/bin", "/lib", "/lib64", "/usr") if Path(path).exists()}
    spec = Spec(command, {"PATH": "/usr/bin:/bin"}, readable, str(root), status[1], status[1], 1 << 30, 1 << 20, 10, 1 << 20, 20)

    source = Path(cage.__file__).read_text()
    done = subprocess.run([python, "-I", "-c", source, json.dumps(asdict(spec))], user=1000, group=1000, extra_groups=[], env={},
                          pass_fds=status[1:], capture_output=True, text=True, check=True, cwd="/")

    said = os.read(status[0], 1000).decode()
    for descriptor in status:
        os.close(descriptor)
    root.rmdir()
    if "unshare" in said:
        pytest.skip(f"this machine lets root alone make a cage ({said})")
    assert json.loads(said) == {"exit": 0}
    assert done.stdout.split() == ["65534", "1", *sorted({"dev", "proc", "scratch", *(path[1:] for path in readable)})]


def test_without_an_example_it_is_said_how_to_give_one(tmp_path: Path) -> None:
    torch.save(sound(), tmp_path / "module.pt")

    report = sandbox.judge(tmp_path / "module.pt")

    assert report.verdict is Verdict.COULD_NOT_RUN
    assert "--example" in report.message


def test_weights_alone_are_no_module(tmp_path: Path, example: Path) -> None:
    torch.save(sound().state_dict(), tmp_path / "weights.pt")

    report = sandbox.judge(tmp_path / "weights.pt", Options(), example)

    assert report.verdict is Verdict.COULD_NOT_RUN
    assert "weights and no module" in report.message


def test_a_folder_with_a_link_out_of_it_is_not_copied(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").symlink_to("/etc/shadow")

    assert "is a link" in sandbox.judge(folder).message


def test_where_nothing_can_be_caged_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(sound(), tmp_path / "module.pt")
    monkeypatch.setattr(sys, "platform", "darwin")

    report = sandbox.judge(tmp_path / "module.pt")

    assert report.verdict is Verdict.COULD_NOT_RUN
    assert "was not run" in report.message


def test_nor_where_python_cannot_start_in_the_cage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(sound(), tmp_path / "module.pt")
    monkeypatch.setattr(caged, "_readable", lambda: [path for path in caged.SYSTEM if path != "/usr" and os.path.exists(path)])

    assert "No such file" in sandbox.judge(tmp_path / "module.pt").message


def test_without_trust_nothing_of_a_pickle_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "module.pt").write_bytes(pickle.dumps(Payload("open(MARKER, 'w')", MARKER=str(marker))))

    report = judge_program(tmp_path / "module.pt")

    assert not report.passed
    assert not marker.exists()


def test_the_work_folder_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "module.pt").write_bytes(pickle.dumps(zoo.CLASSES))

    sandbox.judge(tmp_path / "module.pt")

    assert [path.name for path in tmp_path.iterdir()] == ["module.pt"]
