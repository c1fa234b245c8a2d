"""A candidate with an ONNX file goes in; a report comes out, of which the checks of that file are the last."""

import copy
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from dropout_testing import zoo
from torch import nn

from dropout_api.candidate import ONNX
from dropout_api.spec import ExportSpec, Format
from dropout_api.verdict import Outcome
from dropout_trainer.gate import gate
from dropout_trainer.gate.verdict import GateReport

ASKED = ExportSpec(formats=[Format.PT2, Format.ONNX])
CHECKS = ["onnx_archive", "onnx_graph", "onnx_batch_sizes", "onnx_repeat", "onnx_batch_invariance", "onnx_parity"]


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(zoo.FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, zoo.CLASSES))


def in_training_mode(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).train()


def of_other_weights(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    nn.init.normal_(other.get_parameter("4.weight").data)
    return other.eval()


def of_one_class_more(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Linear(zoo.CLASSES, zoo.CLASSES + 1)).eval()


Judged = Callable[[Callable[[nn.Module], nn.Module]], GateReport]


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    def judge(prepare: Callable[[nn.Module], nn.Module]) -> GateReport:
        model = network()
        folder = zoo.candidate(tmp_path / "candidate", model).folder
        zoo.add_onnx(folder, prepare(model))
        return gate.inspect(folder, (), ASKED).report

    return judge


def test_and_passes_in_eval_mode(judged: Judged) -> None:
    report = judged(nn.Module.eval)

    assert report.passed, report.message
    assert [check.name for check in report.checks][-len(CHECKS):] == CHECKS
    assert {check.outcome for check in report.checks if check.name in CHECKS} == {Outcome.PASSED}


@pytest.mark.parametrize(("prepare", "first", "words"), [
    (in_training_mode, "onnx_graph", "dropout is on"),
    (of_other_weights, "onnx_parity", "the ONNX file answers otherwise than the eager model in eval mode"),
    (of_one_class_more, "onnx_batch_sizes", f"not [1, {zoo.CLASSES}]"),
], ids=["training mode", "other weights", "a class more"])
def test_or_is_refused(prepare: Callable[[nn.Module], nn.Module], first: str, words: str, judged: Judged) -> None:
    report = judged(prepare)

    assert report.failed[0].name == first
    assert words in report.message
    assert all(check.name in CHECKS for check in report.failed)


def test_or_is_none(tmp_path: Path) -> None:
    folder = zoo.candidate(tmp_path, network()).folder
    (folder / ONNX).write_bytes(b"\x08\x0a nothing of the kind")
    zoo.seal(folder)

    assert [check.name for check in gate.inspect(folder, (), ASKED).report.failed] == ["onnx_archive"]


def test_or_keeps_its_weights_in_another_file_of_the_candidate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = network()
    folder = zoo.candidate(tmp_path, model).folder
    zoo.add_onnx(folder, model.eval())
    onnx.save_model(onnx.load(folder / ONNX), folder / ONNX, save_as_external_data=True, location="other.bin", size_threshold=0)
    (folder / "other.bin").rename(folder / "weights.safetensors")
    written = onnx.load(folder / ONNX, load_external_data=False)
    for tensor in written.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "weights.safetensors" if entry.key == "location" else entry.value
    (folder / ONNX).write_bytes(written.SerializeToString())
    zoo.seal(folder)

    failed = gate.inspect(folder, (), ASKED).report.failed

    assert [check.name for check in failed] == ["onnx_archive"]
    assert "keeps weights in 'weights.safetensors'" in failed[0].evidence
