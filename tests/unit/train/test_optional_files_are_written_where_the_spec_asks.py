"""A trained model and `spec.export` go in; a candidate's files come out, or one line that says which field cannot be met."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

from dropout_api.candidate import FILES, MANIFEST, MC, ONNX, PROGRAM, Manifest
from dropout_api.names import ExitCode
from dropout_api.spec import ExportSpec, Format, TrainingJobSpec
from dropout_api.training import Loss
from dropout_trainer.data import Data, digest
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate import gate
from dropout_trainer.gate.gate import attest
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.train.candidate import rehearse, write_candidate
from dropout_trainer.train.environment import versions
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.facts import Facts, candidate_config
from dropout_trainer.train.objective import make_task
from dropout_trainer.train.seeds import derive

SPEC = TrainingJobSpec.model_validate({"model": {"factory": "theirs:model"}, "data": {"factory": "theirs:data"}})
WITH_MC = ExportSpec(mc_passes=10)
WITH_BOTH = ExportSpec(mc_passes=10, formats=[Format.PT2, Format.ONNX])


class Net(nn.Module):
    """Dropout of three kinds that only the mode of their owner switches on, and two layers that must not follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.slope = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.RReLU()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True)
        self.rnn, self.last = nn.LSTM(8, 8, 2, dropout=0.2, batch_first=True), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        row = F.dropout(self.slope(self.norm(self.first(inputs))), 0.2, self.training)
        result: Tensor = self.last(self.rnn(self.encoder(row.unsqueeze(1)))[0][:, -1])
        return result


class Spectral(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.linalg.eigvals(inputs.unsqueeze(2) * inputs.unsqueeze(1)).real[:, :3]


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.last(inputs + torch.randn_like(inputs) if self.training else inputs)
        return result


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


Write = Callable[[nn.Module, ExportSpec], Path]


@pytest.fixture
def write(data: Data, tmp_path: Path) -> Write:
    def run(model: nn.Module, export: ExportSpec) -> Path:
        copy = eval_copy(model)
        facts = Facts(SPEC, derive(42), [], data, digest(data), make_task(data, Loss()), versions(), {"device": "cpu"})
        config = candidate_config(facts, attest(copy, Inputs(Call((data.test.inputs[:8],)))))
        write_candidate(tmp_path, copy, data.test, config, export)
        return tmp_path

    return run


def test_and_the_manifest_names_them(write: Write) -> None:
    folder = write(network(), WITH_BOTH)

    names = {path.name for path in folder.iterdir()}
    assert names == {*FILES, MC, ONNX, MANIFEST}
    assert set(Manifest.model_validate_json((folder / MANIFEST).read_text()).files) == {*FILES, MC, ONNX}
    report = gate.inspect(folder, (), WITH_BOTH).report
    assert report.passed, report.message


def test_an_mc_program_passes_the_gate(write: Write) -> None:
    torch.manual_seed(0)
    report = gate.inspect(write(Net(), WITH_MC), (), WITH_MC).report

    assert report.passed, report.message
    on = next(check.evidence for check in report.checks if check.name == "mc_graph")
    assert all(layer in on for layer in ("Net", "encoder", "rnn")), on


def test_and_not_where_it_does_not(write: Write) -> None:
    assert {path.name for path in write(Net(), ExportSpec()).iterdir()} == {*FILES, MANIFEST}


def test_while_the_model_stays_as_it_was(write: Write, data: Data) -> None:
    model = Net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream = torch.get_rng_state()
    rehearse(model, data.test.inputs, WITH_MC)

    assert torch.equal(torch.get_rng_state(), stream)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_and_a_program_of_mc_dropout_varies_where_the_eval_program_does_not(write: Write, data: Data) -> None:
    folder = write(Net(), WITH_MC)
    plain, mc = (torch.export.load(folder / name).module() for name in (PROGRAM, MC))
    for rows in (1, 2, 7):
        inputs = data.test.inputs[:rows]
        assert torch.equal(plain(inputs), plain(inputs))
        assert not torch.equal(mc(inputs), mc(inputs))


@pytest.mark.parametrize("model", [nn.Linear(6, 3), nn.Sequential(nn.Dropout(0.0), nn.Linear(6, 3)), Noisy()],
                         ids=["no dropout", "a rate of zero", "noise that is no dropout"])
def test_but_never_mc_dropout_without_dropout(model: nn.Module, data: Data) -> None:
    with pytest.raises(StageFailure, match=r"spec\.export\.mcPasses: the model has no dropout that is on in training mode") as end:
        rehearse(model, data.test.inputs, WITH_MC)
    assert end.value.exit_code == ExitCode.SPEC_INVALID


def test_nor_onnx_where_the_model_has_no_such_form(data: Data) -> None:
    with pytest.raises(StageFailure, match=r"cannot be exported to ONNX: .*leave ONNX out of spec\.export\.formats") as end:
        rehearse(Spectral(), data.test.inputs, WITH_BOTH.model_copy(update={"mc_passes": None}))
    assert end.value.exit_code == ExitCode.EXPORT_FAILED
