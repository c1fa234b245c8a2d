"""The exported program is deterministic, takes any batch, agrees with the eager model in eval mode; every file is in the manifest."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dropout_api.candidate import CONFIG, FILES, HELDOUT, MANIFEST, PROGRAM, WEIGHTS, CandidateConfig, Manifest
from dropout_api.names import ExitCode
from dropout_api.spec import TrainingJobSpec
from dropout_api.training import Loss
from dropout_api.verdict import Basis, Location, Outcome
from dropout_trainer.data import Data, Split, digest
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.gate import SOURCE_CHECKS, attest
from dropout_trainer.gate.inputs import Call, Inputs
from dropout_trainer.train.candidate import HELDOUT_BATCH, HELDOUT_ROWS, write_candidate
from dropout_trainer.train.environment import versions
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.facts import Facts, candidate_config, run_params
from dropout_trainer.train.objective import make_task
from dropout_trainer.train.seeds import derive

SPEC = TrainingJobSpec.model_validate({"model": {"factory": "theirs:model"}, "data": {"factory": "theirs:data"}})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.last = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.last(self.drop(self.norm(self.first(inputs))))
        return result


class AlwaysOn(Net):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.dropout(super().forward(inputs))


class Forgetful(Net):
    def train(self, mode: bool = True) -> "Forgetful":
        self.training = mode
        return self


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.two.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.last(self.two(self.one(inputs)))
        return result


class Branching(Net):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs if inputs.sum() > 0 else -inputs)


Written = tuple[nn.Module, dict[str, Path]]
Write = Callable[[nn.Module], Written]


@pytest.fixture
def write(data: Data, tmp_path: Path) -> Write:
    def run(model: nn.Module) -> Written:
        copy = eval_copy(model)
        facts = Facts(SPEC, derive(42), [], data, digest(data), make_task(data, Loss()), versions(), {"device": "cpu"})
        config = candidate_config(facts, attest(copy, Inputs(Call((data.test.inputs[:8],)))))
        files = write_candidate(tmp_path, copy, data.test, config, SPEC.export)
        assert [file.name for file in files] == [*FILES, MANIFEST]
        return copy, {file.name: file for file in files}

    return run


def test_the_program_is_deterministic_takes_any_batch_and_agrees_with_the_eager_model(write: Write, data: Data) -> None:
    model = Net()
    copy, files = write(model)
    program = torch.export.load(files[PROGRAM]).module()
    for rows in (1, 2, 5, 30):
        inputs = data.test.inputs[:rows]
        assert torch.equal(program(inputs), program(inputs))
        assert torch.allclose(program(inputs), copy(inputs), atol=1e-5)
    assert model.training, "the model itself is left as it was"


def test_the_held_out_set_holds_what_the_eager_model_answers(write: Write, data: Data) -> None:
    copy, files = write(Net())
    heldout = load_file(files[HELDOUT])
    assert torch.equal(heldout["input"], data.test.inputs)
    assert torch.equal(heldout["target"], data.test.targets)
    assert torch.equal(heldout["output"], copy(data.test.inputs[:HELDOUT_BATCH]).detach())
    with safe_open(files[HELDOUT], "pt") as file:
        assert file.metadata() == {"batch_size": str(HELDOUT_BATCH)}


def test_the_held_out_set_is_capped(tmp_path: Path, data: Data) -> None:
    test = Split(data.test.inputs.repeat(100, 1), data.test.targets.repeat(100))
    facts = Facts(SPEC, derive(42), [], data, digest(data), make_task(data, Loss()), versions(), {"device": "cpu"})
    write_candidate(tmp_path, eval_copy(nn.Linear(6, 3)), test, candidate_config(facts, []), SPEC.export)
    assert len(load_file(tmp_path / HELDOUT)["target"]) == HELDOUT_ROWS < len(test)


def test_the_manifest_binds_every_file(write: Write) -> None:
    _, files = write(Net())
    manifest = Manifest.model_validate_json(files[MANIFEST].read_text())
    assert set(manifest.files) == set(FILES)
    for name, entry in manifest.files.items():
        content = files[name].read_bytes()
        assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_configuration_says_how_the_candidate_came_to_be(write: Write, data: Data) -> None:
    _, files = write(Net())
    config = CandidateConfig.model_validate_json(files[CONFIG].read_text())
    assert (config.task.outputs, config.task.class_names, config.input_shape) == (3, ["c0", "c1", "c2"], [6])
    assert (config.seeds, config.data_sha256) == (derive(42), digest(data))
    told = {check.name: check.outcome for check in config.attested}
    assert told.items() >= {"module_walk": Outcome.PASSED, "source_repeat": Outcome.PASSED}.items()
    assert {"python", "torch", "numpy", "dropout-operator"} <= set(config.versions)


def test_dropout_that_is_live_in_eval_mode_reaches_the_gate(write: Write, data: Data) -> None:
    _, files = write(AlwaysOn())
    program = torch.export.load(files[PROGRAM]).module()
    assert not torch.equal(program(data.test.inputs), program(data.test.inputs))


def test_modules_that_eval_does_not_reach_are_attested(write: Write) -> None:
    _, files = write(Forgetful())
    told = {check.name: check for check in CandidateConfig.model_validate_json(files[CONFIG].read_text()).attested}
    assert set(told) == set(SOURCE_CHECKS)
    assert told["module_walk"].outcome is Outcome.FAILED
    assert told["module_walk"].basis is Basis.ATTESTED
    assert told["module_walk"].where == Location(layer="norm", op="BatchNorm1d")


def test_tied_weights_are_saved_under_both_names(write: Write) -> None:
    copy, files = write(Tied())
    loaded = Tied()
    loaded.load_state_dict(load_file(files[WEIGHTS]))
    assert torch.equal(loaded.two.weight, dict(copy.named_parameters())["one.weight"])


def test_a_model_that_cannot_be_exported_is_told_why(write: Write) -> None:
    with pytest.raises(StageFailure, match=r"the model cannot be exported: .*torch.export needs a forward without Python branches") as end:
        write(Branching())
    assert end.value.exit_code == ExitCode.EXPORT_FAILED


def test_the_runs_parameters_hold_the_whole_spec_and_every_seed(data: Data) -> None:
    facts = Facts(SPEC, derive(42), [], data, digest(data), make_task(data, Loss()), versions(), {"device": "cpu"})
    params = run_params(facts, nn.Linear(6, 3))
    assert {f"seed.{stream}": seed for stream, seed in derive(42).items()}.items() <= params.items()
    assert params["training.optimizer.learning_rate"] == 0.001
    assert params["data.sha256"] == digest(data)
    assert params["model.parameters"] == 21
