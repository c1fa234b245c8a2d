"""What a program of the user's does not catch becomes one report and one exit code by kind, with the place in the user's code; errors that
say all by themselves show no traceback."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistBackendError

from dropout_api.names import Env, ExitCode, Torchrun
from dropout_trainer.errors import StageFailure
from dropout_trainer.loop.ending import report_endings
from dropout_trainer.train.ending import Preempted, Terminated

FAILURE = StageFailure("NonFiniteLoss", "val_loss is nan after epoch 2", ExitCode.NON_FINITE_LOSS)


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit code and the report of a program that ends with an exception."""
    monkeypatch.setenv(Env.TERMINATION_LOG, str(tmp_path / "report.json"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("dropout_trainer.loop.ending.leave", sys.exit)  # which would end the test, too
    report_endings(lambda: "after epoch 2 of 9")

    def end(error: BaseException) -> tuple[object, dict[str, str]]:
        try:
            raise error
        except BaseException:
            with pytest.raises(SystemExit) as left:
                sys.excepthook(type(error), error, error.__traceback__)
        return left.value.code, json.loads((tmp_path / "report.json").read_text())

    return end


@pytest.mark.parametrize(("error", "code", "reason", "words"), [
    (ValueError("no such digit"), ExitCode.USER_CODE, "UserCode", "spec.command: ValueError: no such digit ("),
    (FileNotFoundError(2, "No such file", "/data"), ExitCode.DATA_MISSING, "DataMissing", "spec.podTemplate.volumes"),
    (KeyboardInterrupt(), ExitCode.USER_CODE, "UserCode", "spec.command: KeyboardInterrupt"),
    (RuntimeError("index_add does not have use_deterministic_algorithms"), ExitCode.SPEC_INVALID, "SpecInvalid", "set spec.determinism"),
    (FAILURE, ExitCode.NON_FINITE_LOSS, "NonFiniteLoss", "val_loss is nan after epoch 2"),
    (Terminated(), 143, "Terminated", "stopped by SIGTERM after epoch 2 of 9"),
    (Preempted(), ExitCode.PREEMPTED, "Preempted", "after epoch 2 of 9; its checkpoint is saved"),
])
def test_each_kind(
    ended: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, reason: str, words: str,
) -> None:
    left, report = ended(error)
    assert (left, report["reason"]) == (code, reason)
    assert words in report["message"]
    assert ("Traceback" in capsys.readouterr().err) == (not isinstance(error, StageFailure | Terminated))


@pytest.mark.parametrize(("size", "code", "reason"), [("2", ExitCode.PEER_LOST, "PeerLost"), ("1", ExitCode.USER_CODE, "UserCode")])
@pytest.mark.parametrize("error", [
    RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:4711"), DistBackendError("remote process exited"),
])
def test_a_lost_peer_is_no_failure_of_the_users_code(
    ended: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: RuntimeError, size: str, code: int, reason: str,
) -> None:
    for name in Torchrun:
        monkeypatch.setenv(name, size if "SIZE" in name else "0")
    left, report = ended(error)
    assert (left, report["reason"]) == (code, reason)
    assert ("Traceback" in capsys.readouterr().err) == (size == "1")
