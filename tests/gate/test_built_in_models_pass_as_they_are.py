"""Every built-in model, after a step of training, passes the gate live, as a program, as an MC-dropout program's source and as ONNX."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dropout_api.spec import ModelSpec
from dropout_api.verdict import Outcome
from dropout_trainer.data import Data, Split, scaling_of
from dropout_trainer.gate.formats import onnx_file, onnx_run
from dropout_trainer.gate.formats.onnx_scan import scan
from dropout_trainer.gate.local import Options, as_call, judge_module
from dropout_trainer.train.factories import build_model
from dropout_trainer.train.mc_export import export_mc
from dropout_trainer.train.onnx_export import export_onnx

ROWS = 24
NOISE = torch.Generator().manual_seed(0)
FLOATS = torch.randn(ROWS, 6, generator=NOISE) * 10 + 5
SEQUENCES = torch.randn(ROWS, 9, 3, generator=NOISE) * 30 + 100
IMAGES = torch.rand(ROWS, 1, 8, 8, generator=NOISE)
TOKENS = torch.randint(1, 20, (ROWS, 9), generator=NOISE)
TOKENS[:, 6:] = 0
TOKENS[3] = 0
CLASSES = torch.arange(ROWS) % 3
VALUES = torch.randn(ROWS, 3, generator=NOISE) * 50 + 1000
MODELS: dict[str, tuple[str, dict[str, Any], Tensor, Tensor]] = {
    "mlp": ("mlp", {"hidden": [16]}, FLOATS, CLASSES),
    "mlp of values": ("mlp", {"hidden": [16], "activation": "GELU"}, FLOATS, VALUES),
    "mlp with alpha dropout": ("mlp", {"hidden": [16], "activation": "SELU", "dropout": 0.2}, FLOATS, CLASSES),
    "cnn": ("cnn", {"channels": [4], "dense": 8}, IMAGES, CLASSES),
    "resnet": ("resnet", {"blocks": [1, 1], "width": 4, "stochastic_depth": 0.4}, IMAGES, CLASSES),
    "transformer of tokens": ("transformer", {"width": 16, "heads": 2, "layers": 1, "feedforward": 16}, TOKENS, CLASSES),
    "transformer of floats": ("transformer", {"width": 16, "heads": 2, "layers": 1, "feedforward": 16}, SEQUENCES, VALUES),
    "lstm of tokens": ("lstm", {"hidden": 8, "layers": 2}, TOKENS, CLASSES),
    "lstm of floats": ("lstm", {"hidden": 8}, SEQUENCES, VALUES),
    "gru": ("lstm", {"cell": "GRU", "hidden": 8}, SEQUENCES, CLASSES),
}


@pytest.fixture(params=MODELS)
def trained(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, Tensor]:
    name, args, inputs, targets = MODELS[request.param]
    split = Split(inputs, targets)
    scaled = inputs.is_floating_point() and inputs.dim() < 4
    held = Data(split, split, split, scaling=scaling_of(inputs) if scaled else None)
    model = build_model(ModelSpec.model_validate({"factory": name, "args": args}), held, 3)
    model.train()(inputs).sum().backward()
    torch.optim.SGD(model.parameters(), 1e-4).step()
    return model, inputs


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_live_and_as_a_program(trained: tuple[torch.nn.Module, Tensor]) -> None:
    model, inputs = trained
    report = judge_module(model, as_call(inputs[:8]), Options(require_export=True))

    assert report.passed, report.message
    outcomes = {check.name: check.outcome for check in report.checks}
    for name in ("module_walk", "positive_control", "batch_sizes", "batch_invariance", "decomposed_graph", "parity"):
        assert outcomes[name] is Outcome.PASSED, name


def test_with_its_dropout_on(trained: tuple[torch.nn.Module, Tensor]) -> None:
    model, inputs = trained
    program = export_mc(model, inputs[:8]).module()

    assert not torch.equal(program(inputs), program(inputs))
    assert program(inputs[:1]).shape == (1, 3)


def test_as_onnx(trained: tuple[torch.nn.Module, Tensor], tmp_path: Path) -> None:
    model, inputs = trained
    path = tmp_path / "model.onnx"
    export_onnx(model, (inputs[:4].clone(),), path)

    result = scan(onnx_file.load(path).model)
    session = onnx_run.Session(path)

    assert result.outcome is Outcome.PASSED, result.evidence
    model.eval()
    for rows in (1, 2, ROWS):
        torch.testing.assert_close(session.run((inputs[:rows],)), [model(inputs[:rows]).detach()], atol=1e-3, rtol=1e-4)
