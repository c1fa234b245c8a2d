"""A factory gets what it asks for, and what goes wrong in it is one line that names the field, the place and the remedy."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dropout_api.names import ExitCode
from dropout_api.spec import DataSpec, ModelSpec
from dropout_trainer.data import Data, Scaling, Split, digest, problems
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.factories import build_data, build_model
from dropout_trainer.train.usercode import user_code

MODULE = '''
import torch
from torch import nn
from dropout_trainer.data import Data, Split

def sized(input_shape, num_classes, width=4):
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.Linear(width, num_classes))

def valued(input_shape, num_outputs):
    return nn.Linear(input_shape[0], num_outputs)

def fixed(width):
    return nn.Linear(width, 3)

def anything(**kwargs):
    assert not kwargs
    return nn.Linear(6, 3)

def faulty():
    return helper()

def helper():
    raise KeyError("weights")

def torch_fault():
    return nn.Linear("six", 3)

def number():
    return 3

def lost():
    return open("/nowhere/table.csv")

def seeded(seed):
    return Data(*(Split(torch.full((4, 1), float(seed % 100)), torch.tensor([0, 1, 0, 1])),) * 3)

def unseeded():
    return seeded(5)

class Nested:
    def make():
        return nn.Linear(6, 3)

constant = 3
'''


@pytest.fixture(autouse=True)
def _their_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "theirs.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import theirs\n1 / 0\n")
    (tmp_path / "needy.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("theirs", "broken", "needy"):
        sys.modules.pop(name, None)


def model(factory: str, data: Data, **args: object) -> nn.Module:
    return build_model(ModelSpec.model_validate({"factory": factory, "args": args}), data, 3)


def loaded(factory: str, **args: object) -> Data:
    return build_data(DataSpec.model_validate({"factory": factory, "args": args}), 7)


def test_a_model_factory_gets_what_its_signature_names(data: Data) -> None:
    assert model("theirs:sized", data)(data.val.inputs).shape == (30, 3)
    assert model("theirs:sized", data, num_classes=9, width=2)(data.val.inputs).shape == (30, 9)
    assert model("theirs:valued", data)(data.val.inputs).shape == (30, 3)
    assert isinstance(model("theirs:fixed", data, width=6), nn.Linear)
    assert isinstance(model("theirs:anything", data), nn.Linear)
    assert isinstance(model("theirs:Nested.make", data), nn.Linear)


def test_a_data_factory_gets_a_seed_if_it_asks() -> None:
    assert loaded("theirs:seeded").train.inputs[0].item() == 7
    assert loaded("theirs:unseeded").train.inputs[0].item() == 5


@pytest.mark.parametrize(("factory", "args", "code", "message"), [
    ("mpl", {}, ExitCode.SPEC_INVALID, "spec.model.factory: no built-in 'mpl'; use one of cnn, lstm, mlp, resnet, transformer or"),
    ("mlp", {"hiden": [3]}, ExitCode.SPEC_INVALID, r"spec.model.args.hiden: unknown field; known: hidden, activation, dropout"),
    ("cnn", {}, ExitCode.SPEC_INVALID, r"spec.model.factory: cnn needs images of .* but a row of the data is \[6\]; use mlp"),
    ("resnet", {}, ExitCode.SPEC_INVALID, r"spec.model.factory: resnet needs images of .* but a row of the data is \[6\]; use mlp"),
    ("lstm", {}, ExitCode.SPEC_INVALID, r"lstm needs token numbers \[length\] of int64 or .* is \[6\] of float32; use mlp or cnn"),
    ("transformer", {"heads": 5}, ExitCode.SPEC_INVALID, "spec.model.args: width: 64 is no multiple of heads 5"),
    ("thiers:sized", {}, ExitCode.SPEC_INVALID, "there is no module thiers; is it in spec.image"),
    ("theirs:size", {}, ExitCode.SPEC_INVALID, "spec.model.factory: module theirs has no size"),
    ("theirs:constant", {}, ExitCode.SPEC_INVALID, "theirs:constant is a int, which cannot be called"),
    ("theirs:fixed", {}, ExitCode.SPEC_INVALID, r"spec.model.args: .*missing a required argument: 'width'; its signature is \(width\)"),
    ("theirs:fixed", {"wide": 3}, ExitCode.SPEC_INVALID, "spec.model.args: theirs:fixed "),
    ("theirs:faulty", {}, ExitCode.USER_CODE, r"theirs:faulty raised: KeyError: 'weights' \(.*theirs.py:23 in helper\)"),
    ("theirs:torch_fault", {}, ExitCode.USER_CODE, r"TypeError: .* \(.*theirs.py:26 in torch_fault\)"),
    ("theirs:number", {}, ExitCode.USER_CODE, "theirs:number must return a torch.nn.Module, not a int"),
    ("broken:x", {}, ExitCode.USER_CODE, r"importing broken raised: ZeroDivisionError: division by zero \(.*broken.py:2 in <module>\)"),
    ("needy:x", {}, ExitCode.USER_CODE, r"importing needy raised: ModuleNotFoundError: No module named 'no_such_library' \(.*needy.py:1"),
])
def test_a_model_factorys_fault(factory: str, args: dict[str, object], code: ExitCode, message: str, data: Data) -> None:
    with pytest.raises(StageFailure, match=message) as end:
        model(factory, data, **args)
    assert end.value.exit_code == code
    assert "\n" not in end.value.message


@pytest.mark.parametrize(("factory", "args", "code", "message"), [
    ("sklearn", {"name": "iris"}, ExitCode.SPEC_INVALID, r"spec.data.args.name: .*\(given: 'iris'\)"),
    ("theirs:number", {}, ExitCode.USER_CODE, "theirs:number must return a dropout_trainer.data.Data, not a int"),
    ("theirs:lost", {}, ExitCode.DATA_MISSING, r"FileNotFoundError: .*/nowhere/table.csv.*mount it with spec.podTemplate"),
    ("fashion_mnist", {"path": "/nowhere"}, ExitCode.DATA_MISSING, r"spec.data.args.path: no train-images-idx3-ubyte .* in /nowhere"),
])
def test_a_data_factorys_fault(factory: str, args: dict[str, object], code: ExitCode, message: str) -> None:
    with pytest.raises(StageFailure, match=message) as end:
        loaded(factory, **args)
    assert end.value.exit_code == code


GOOD = Split(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(("split", "message"), [
    (Split(torch.zeros(4, 2, dtype=torch.float64), GOOD.targets), "train.inputs must be float32 or int64, not float64"),
    (Split(torch.zeros(4), GOOD.targets), r"train.inputs must be \[N, ...\]"),
    (Split(GOOD.inputs, GOOD.targets.int()), r"train.targets must be \[N\] of int64 .* or \[N, values\] of float32, not \[4\] of int32"),
    (Split(torch.zeros(3, 2), GOOD.targets), "train.inputs has 3 rows but targets has 4"),
    (Split(torch.zeros(1, 2), GOOD.targets[:1]), "train.targets has 1 rows; at least 2"),
    (Split(torch.full((4, 2), torch.nan), GOOD.targets), "train.inputs holds NaN or infinity"),
    (Split(GOOD.inputs, GOOD.targets - 1), "train.targets are -1…0, but must lie in 0…1"),
    (Split(torch.zeros(4, 3), GOOD.targets), r"val.inputs is \[2\] of float32 a row, but train.inputs is \[3\] of float32"),
    (Split(GOOD.inputs, GOOD.targets.float()), r"train.targets must be .*, not \[4\] of float32"),
    (Split("abc", GOOD.targets), "train.inputs and targets must be torch tensors"),
])
def test_data_that_cannot_be_trained_on_is_refused(split: Split, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import theirs  # type: ignore[import-not-found]

    monkeypatch.setattr(theirs, "unseeded", lambda: Data(split, GOOD, GOOD))
    with pytest.raises(StageFailure, match=message) as end:
        loaded("theirs:unseeded")
    assert end.value.exit_code == ExitCode.DATA_INVALID


@pytest.mark.parametrize(("names", "message"), [
    ({"scaling": Scaling(torch.zeros(3), torch.ones(3))}, r"scaling.mean and .* are \[3\] and \[3\], but a row's last dimension is \[2\]"),
    ({"scaling": Scaling(torch.zeros(2), torch.zeros(2))}, "scaling.deviation must be above 0"),
    ({"feature_names": ("a",)}, r"feature_names has 1 names, but a row's last dimension is \[2\]"),
    ({"segment_names": ("a",)}, "train.segments and segment_names must both be there"),
    ({"class_names": ("a",)}, "train.targets are 0…1, but must lie in 0…0"),
])
def test_names_and_scaling_must_fit(names: dict[str, Any], message: str) -> None:
    assert re.search(message, "; ".join(problems(Data(GOOD, GOOD, GOOD, **names))))


def test_token_numbers_lie_in_the_vocabulary() -> None:
    tokens = Split(torch.tensor([[0, 5], [1, 2]]), torch.tensor([0, 1]))
    assert problems(Data(tokens, tokens, tokens)) == []
    assert "train.inputs are 0…5, but must lie in 0…2" in problems(Data(tokens, tokens, tokens, vocabulary=("<pad>", "<unknown>", "a")))


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("field", ["inputs", "targets", "segments"])
def test_the_digest_covers_every_split_field_and_value(split: str, field: str) -> None:
    whole = {name: Split(GOOD.inputs, GOOD.targets, torch.zeros(4, dtype=torch.int64)) for name in ("train", "val", "test")}
    changed = getattr(whole[split], field).clone()
    changed.view(-1)[-1] += 1
    other = whole | {split: replace(whole[split], **{field: changed})}
    assert digest(Data(**whole)) == digest(Data(**whole))
    assert digest(Data(**whole)) != digest(Data(**other))


def test_the_digest_tells_splits_dtypes_and_names_apart(data: Data) -> None:
    assert digest(data) != digest(Data(data.val, data.train, data.test, data.class_names))
    assert digest(data) != digest(replace(data, class_names=("c0", "c2", "c1")))
    zeros = [Split(torch.zeros(4, 2, dtype=dtype), torch.tensor([0, 1, 0, 1])) for dtype in (torch.float32, torch.int32)]
    assert len({digest(Data(split, split, split)) for split in zeros}) == 2


@pytest.mark.parametrize(("text", "field"), [
    ("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')", "spec.training.compile"),
    ("could not create a primitive descriptor for the LSTM forward propagation primitive.", "spec.training.precision"),
])
def test_what_a_machine_lacks_is_blamed_on_the_field_that_asks_for_it(text: str, field: str) -> None:
    """With a built-in model, too, whose other exceptions are bugs of ours."""
    with pytest.raises(StageFailure, match=field) as end, user_code("training raised", "lstm"):
        raise RuntimeError(text)
    assert end.value.exit_code == ExitCode.SPEC_INVALID
