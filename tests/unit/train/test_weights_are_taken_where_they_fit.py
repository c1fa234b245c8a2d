"""Fine-tuning starts from the weights that the spec names; what does not fit is told by tensor and shape."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dropout_api.candidate import CandidateConfig, Task
from dropout_api.names import ExitCode
from dropout_api.spec import Weights
from dropout_api.task import RunRef
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.weights import Start, load_weights, read_weights, require_same_meaning

RUN = RunRef(id="a" * 32, experiment_id="1")


def never(*_: object) -> NoReturn:
    raise AssertionError("nothing is to be downloaded")


def net(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(net().state_dict(), path)
    return path


def test_a_file_gives_every_tensor_and_buffer(file: Path) -> None:
    weights, model = read_weights(Weights(uri=str(file)), None, never).tensors, net()
    assert load_weights(model, weights, strict=True) == []
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_run_gives_its_candidates_weights_and_what_they_mean(file: Path, tmp_path: Path) -> None:
    config = configured(class_names=["cat", "dog"])
    (tmp_path / "config.json").write_text(config.to_json())
    asked = []

    def download(run: str, path: str, folder: Path) -> Path:
        asked.append((run, path))
        return file if path.endswith(".safetensors") else tmp_path / "config.json"

    start = read_weights(Weights(run=RUN.id), RUN, download)
    assert set(start.tensors) == set(net().state_dict())
    assert start.config == config
    assert asked == [(RUN.id, "candidate/weights.safetensors"), (RUN.id, "candidate/config.json")]


def configured(class_names: list[str] = [], vocabulary: list[str] = []) -> CandidateConfig:  # noqa: B006 - neither is changed
    return CandidateConfig(seed=1, seeds={}, plan=[], task=Task(outputs=2, class_names=class_names), input_shape=[6], vocabulary=vocabulary,
                           versions={}, data_sha256="0" * 64, model_factory="mlp")


@pytest.mark.parametrize(("before", "what"), [
    (configured(class_names=["dog", "cat"]), "2 classes 2 have"),
    (configured(vocabulary=["", "?", "good", "bad"]), "4 tokens 2 have"),
])
def test_weights_whose_numbers_mean_something_else_are_refused(data: Data, before: CandidateConfig, what: str) -> None:
    now = replace(data, class_names=("cat", "dog"), vocabulary=("", "?", "bad", "good"))
    with pytest.raises(StageFailure, match=f"of the data's {what} another number"):
        require_same_meaning(Start({}, before), now)
    require_same_meaning(Start({}, configured(class_names=["cat", "dog"])), now)
    require_same_meaning(Start({}, None), now)


def test_weights_that_are_not_finite_are_refused() -> None:
    broken = net().state_dict() | {"0.bias": torch.full((8,), torch.nan)}
    with pytest.raises(StageFailure, match=r"0\.bias holds NaN or infinity"):
        load_weights(net(), broken, strict=True)


def test_another_head_is_refused_unless_what_fits_will_do(file: Path) -> None:
    weights, model = read_weights(Weights(uri=file.as_uri()), None, never).tensors, net(5)
    with pytest.raises(StageFailure, match=r"of another shape: 2.weight is \[3, 8\], not \[5, 8\], 2.bias .*strict to false"):
        load_weights(model, weights, strict=True)
    assert load_weights(model, weights, strict=False) == ["2.weight", "2.bias"]
    assert torch.equal(model.state_dict()["0.weight"], weights["0.weight"])


def test_weights_of_another_model_are_refused_even_so(file: Path) -> None:
    weights = read_weights(Weights(uri=str(file)), None, never).tensors
    with pytest.raises(StageFailure, match=r"not in the file: weight, bias; not in the model: 0.bias, 0.weight") as end:
        load_weights(nn.Linear(2, 2), weights, strict=False)
    assert "strict to false" not in str(end.value)


@pytest.mark.parametrize(("content", "code", "message"), [
    (None, ExitCode.DATA_MISSING, "there is no .*; mount the volume"),
    (b"\x80\x02}q\x00.", ExitCode.DATA_INVALID, "is no safetensors file .*convert other formats"),
])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, code: ExitCode, message: str) -> None:
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageFailure, match=message) as end:
        read_weights(Weights(uri=str(path)), None, never)
    assert end.value.exit_code == code


def test_a_run_without_a_candidate_is_one_line() -> None:
    def download(*_: object) -> NoReturn:
        raise OSError("no such artifact")

    with pytest.raises(StageFailure, match=r"spec.model.weights: run a+ has no candidate that can be read \(no such artifact\)"):
        read_weights(Weights(run=RUN.id), RUN, download)
