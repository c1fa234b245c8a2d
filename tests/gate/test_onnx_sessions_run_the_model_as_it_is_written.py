from pathlib import Path

import onnxruntime
import pytest
import torch
from dropout_testing.onnx_models import BOOL, FLOAT, INT64, dropout, graph, model, net, node, plain, tensor, value, write
from onnx import TensorProto

from dropout_trainer.gate.formats.onnx_run import InputSpec, Session
from dropout_trainer.gate.verdict import RefusedError

ROWS = torch.ones(16, 8)


def test_so_a_dropout_varies_that_the_optimiser_would_hide(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", net(node("Mul", "x weight", "a"), dropout("on", "a", "b"), node("Neg", "b")))
    usual = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    session = Session(path)

    assert (usual.run(None, {"x": ROWS.numpy()})[0] == usual.run(None, {"x": ROWS.numpy()})[0]).all()
    first, second = session.run([ROWS])[0], session.run([ROWS])[0]
    assert not torch.equal(first, second)


def test_and_a_sound_model_repeats_to_the_bit(tmp_path: Path) -> None:
    session = Session(write(tmp_path / "model.onnx", plain()))

    assert session.inputs == (InputSpec("x", torch.float32, ("batch", 8)),)
    assert torch.equal(session.run([ROWS])[0], ROWS * torch.arange(1, 9))


def test_and_an_initialiser_that_may_be_replaced_is_no_input(tmp_path: Path) -> None:
    made = net(dropout("mode"), inputs=[value("mode", BOOL, ())], constants=[tensor("mode", BOOL, False)])

    assert [spec.name for spec in Session(write(tmp_path / "model.onnx", made)).inputs] == ["x"]


def test_an_endless_loop_is_ended(tmp_path: Path) -> None:
    body = graph([node("Identity", "go", "go_on"), node("Neg", "a", "b")],
                 [value("i", INT64, ()), value("go", BOOL, ()), value("a")], [value("go_on", BOOL, ()), value("b")])
    session = Session(write(tmp_path / "model.onnx", net(node("Loop", "_ on x", body=body))), seconds=0.5)

    with pytest.raises(RefusedError, match="terminate"):
        session.run([ROWS])


def test_an_allocation_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    made = net(node("ConstantOfShape", "huge", "z"), node("ReduceSum", "z", "s", keepdims=0), node("Add", "x s"),
               constants=[tensor("huge", INT64, [1 << 40], [1])])
    session = Session(write(tmp_path / "model.onnx", made))

    with pytest.raises(RefusedError, match="ConstantOfShape"):
        session.run([ROWS])


@pytest.mark.parametrize(("inputs", "words"), [
    ([], "takes 1 inputs and was given 0"), ([torch.ones(2, 3)], "Got: 3 Expected: 8"),
    ([ROWS.double()], "takes torch.float32 and was given torch.float64"),
    ([torch.ones(2, 8, dtype=torch.bfloat16)], "bfloat16"),
])
def test_inputs_of_another_kind_are_refused(inputs: list[torch.Tensor], words: str, tmp_path: Path) -> None:
    session = Session(write(tmp_path / "model.onnx", plain()))

    with pytest.raises(RefusedError, match=words) as refused:
        session.run(inputs)

    assert refused.value.remedy


def test_a_model_of_texts_is_refused(tmp_path: Path) -> None:
    takes = model(graph([node("Identity", "x")], [value("x", TensorProto.STRING)], [value("y", TensorProto.STRING)]))

    with pytest.raises(RefusedError, match="input 'x' is a tensor"):
        Session(write(tmp_path / "model.onnx", takes))


def test_and_one_that_answers_with_texts(tmp_path: Path) -> None:
    answers = model(graph([node("Cast", "x", to=TensorProto.STRING)], [value("x")], [value("y", TensorProto.STRING)]))

    with pytest.raises(RefusedError, match="an output of the model is a object"):
        Session(write(tmp_path / "model.onnx", answers)).run([ROWS])


def test_what_onnxruntime_has_no_kernel_for_is_refused(tmp_path: Path) -> None:
    made = model(graph([node("RandomNormalLike", "x")], [value("x", FLOAT)]), opset=22)

    with pytest.raises(RefusedError, match="cannot load the model"):
        Session(write(tmp_path / "model.onnx", made))
