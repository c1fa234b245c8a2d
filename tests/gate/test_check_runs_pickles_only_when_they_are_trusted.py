"""Without --trust nothing in them runs; with it they run in the gate's cage, whose own tests say what that keeps from them."""

import os
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from dropout_testing import shop

from dropout_api.verdict import Basis, Verdict
from dropout_trainer.check import targets
from dropout_trainer.check.arguments import Asked
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import GateReport

caged = pytest.mark.skipif(os.geteuid() != 0, reason="a cage is made by root")
pytestmark = pytest.mark.filterwarnings("ignore")


def judge(path: Path, trust: bool, example: str | None = None) -> GateReport:
    return targets.judge(str(path), Asked([str(path)], trust=trust, example=example))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pkl"])
def test_a_file_by_its_name_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no pickle at all: it must not even be opened")
    (tmp_path / name).chmod(0)

    report = judge(tmp_path / name, trust=False)

    assert report.verdict is Verdict.COULD_NOT_RUN
    assert f"{name} is a pickle or TorchScript" in report.message
    assert "--trust" in report.message


def test_its_example_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")

    with pytest.raises(StageFailure, match=r"name a \.npz, \.npy or \.safetensors file"):
        judge(tmp_path / "model.pt", trust=True, example="dropout_testing.shop:example")


@caged
def test_torchscript_that_is_trusted_is_judged_on_its_own_word(tmp_path: Path) -> None:
    torch.jit.trace(shop.Live().eval(), torch.ones(3, 4), check_trace=False).save(tmp_path / "model.pt")
    np.savez(tmp_path / "example.npz", np.ones((3, 4), dtype=np.float32))

    report = judge(tmp_path / "model.pt", trust=True, example=str(tmp_path / "example.npz"))

    assert report.verdict is Verdict.FAILED, report.message
    assert {check.basis for check in report.failed} == {Basis.ATTESTED}


@caged
def test_and_so_is_mlflows_folder_with_its_own_example(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 2))
    mlflow.pytorch.save_model(model.train(), str(tmp_path / "model"), serialization_format="pickle", pip_requirements=["torch"],
                              input_example=np.ones((3, 4), dtype=np.float32))

    report = judge(tmp_path / "model", trust=True)

    assert report.verdict is Verdict.PASSED, report.message
