from collections.abc import Callable

import onnx
import pytest
from dropout_testing.onnx_models import (
    BOOL,
    FLOAT,
    INT64,
    LOCAL,
    branch,
    called,
    called_twice_removed,
    called_with,
    dropout,
    function,
    loop,
    net,
    node,
    norm,
    tensor,
    value,
)
from onnx import ModelProto

from dropout_api.verdict import Outcome
from dropout_trainer.gate.formats.onnx_scan import scan

Build = Callable[[], ModelProto]


def constant(name: str, switched: bool, shape: tuple[int, ...] = ()) -> onnx.NodeProto:
    return node("Constant", outputs=name, value=tensor("", BOOL, [switched] if shape else switched, shape))


def through_casts(start: str) -> list[onnx.NodeProto]:
    return [node("Cast", start, "number", to=INT64), node("Identity", "number", "same"), node("Cast", "same", "mode", to=BOOL)]


MODE = value("mode", BOOL, ())
TRUE = "onnx.Dropout (training_mode=true, ratio=0.5): dropout is on"
LIVE: dict[str, tuple[Build, str, str]] = {
    # how it comes: the model, what the evidence says, the layer
    "a constant true": (lambda: net(dropout()), TRUE, "drop"),
    "opset 12": (lambda: net(dropout(), opset=12), TRUE, "drop"),
    "opset 13": (lambda: net(dropout(), opset=13), TRUE, "drop"),
    "opset 22": (lambda: net(dropout(), opset=22), TRUE, "drop"),
    "no ratio, which is a half": (lambda: net(dropout(ratio="_")), TRUE, "drop"),
    "a ratio that the caller gives": (lambda: net(dropout(ratio="r"), inputs=[value("r", FLOAT, ())]), "(training_mode=true)", "drop"),
    "a graph input": (lambda: net(dropout("mode"), inputs=[MODE]), "training_mode is the input 'mode'", "drop"),
    "an initialiser that can be replaced": (
        lambda: net(dropout("mode"), inputs=[MODE], constants=[tensor("mode", BOOL, False)]), "so that a caller may replace it", "drop"),
    "a value computed from the input": (
        lambda: net(node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum half", "mode"), dropout("mode")),
        "training_mode is the value 'mode', which Greater computes", "drop"),
    "true through casts": (lambda: net(*through_casts("on"), dropout("mode")), TRUE, "drop"),
    "an input through casts": (
        lambda: net(*through_casts("m"), dropout("mode"), inputs=[value("m", FLOAT, ())]), "training_mode is the input 'm'", "drop"),
    "a constant node": (lambda: net(constant("mode", True), dropout("mode")), TRUE, "drop"),
    "a branch": (lambda: branch("on"), TRUE, "choice"),
    "a branch with a constant of its own": (lambda: branch("own", constant("own", True)), TRUE, "choice"),
    "a loop": (lambda: loop("on"), TRUE, "steps"),
    "a loop that may switch it": (lambda: loop("go"), "training_mode is the input 'go'", "steps"),
    "a function": (lambda: called("on"), TRUE, "call"),
    "a function in a function": (lambda: called_twice_removed("on"), TRUE, "call"),
    "a function's attribute": (lambda: called_with(training=1), "(training_mode=true, ratio=0.3)", "call"),
    "a function that nobody calls": (
        lambda: net(node("Neg", "x"), functions=[function("Drop", node("Dropout", "a _ m", "b"), inputs="a m")]), "the input 'm'", "b"),
    "a result that nobody uses": (lambda: net(dropout(y="unused"), node("Neg", "x")), TRUE, "drop"),
    "opset 6, where it is on unless told": (lambda: net(node("Dropout", "x"), opset=6), "(is_test=0, ratio=0.5)", "y"),
    "batch norm in training": (
        lambda: norm(15, "y m v", training_mode=1), "onnx.BatchNormalization (training_mode=1): it normalises by the batch", "norm"),
    "batch norm with the outputs of training": (lambda: norm(9, "y m v sm sv"), "5 outputs, which only training has", "norm"),
    "batch norm of opset 6, in training unless told": (lambda: norm(6), "onnx.BatchNormalization (is_test=0)", "norm"),
    "random normal": (lambda: net(node("Neg", "x"), node("RandomNormal", "", "z", shape=[8])), "onnx.RandomNormal draws", "z"),
    "random uniform": (lambda: net(node("Neg", "x"), node("RandomUniform", "", "z", shape=[8])), "onnx.RandomUniform draws", "z"),
    "random normal like": (lambda: net(node("RandomNormalLike", "x")), "onnx.RandomNormalLike draws", "y"),
    "random uniform with a seed": (lambda: net(node("RandomUniformLike", "x", seed=1.0)), "onnx.RandomUniformLike draws", "y"),
    "bernoulli": (lambda: net(node("Bernoulli", "x")), "onnx.Bernoulli draws", "y"),
    "multinomial": (lambda: net(node("Neg", "x"), node("Multinomial", "x", "z")), "onnx.Multinomial draws", "z"),
}

OFF_FOR_GOOD: dict[str, Build] = {
    "a constant false": lambda: net(dropout("off")),
    "no mode": lambda: net(node("Dropout", "x half")),
    "a mode left out": lambda: net(dropout("_")),
    "opset 7, which has no mode": lambda: net(node("Dropout", "x"), opset=7),
    "opset 11, which has no mode": lambda: net(node("Dropout", "x", ratio=0.3), opset=11),
    "opset 6, told so": lambda: net(node("Dropout", "x", is_test=1), opset=6),
    "a ratio of zero": lambda: net(dropout(ratio="zero")),
    "false through casts": lambda: net(*through_casts("off"), dropout("mode")),
    "a half, cast to a whole number": lambda: net(*through_casts("half"), dropout("mode")),
    "a constant node": lambda: net(constant("mode", False), dropout("mode")),
    "a constant of one element": lambda: net(constant("mode", False, (1,)), dropout("mode")),
    "a branch": lambda: branch("off"),
    "a loop": lambda: loop("off"),
    "a function": lambda: called("off"),
    "a function in a function": lambda: called_twice_removed("off"),
    "a function's default": lambda: called_with(),
    "a function's attribute": lambda: called_with(training=0),
    "a function of that name": lambda: net(node("Dropout", "x", domain=LOCAL), functions=[function("Dropout", node("Neg", "a", "b"))]),
    "batch norm with running statistics": lambda: norm(15),
    "batch norm of opset 9": lambda: norm(9),
    "batch norm of opset 6, told so": lambda: norm(6, is_test=1),
}


@pytest.mark.parametrize("name", LIVE)
def test_so_it_is_live_with(name: str) -> None:
    build, words, layer = LIVE[name]
    built = build()
    onnx.checker.check_model(built)

    result = scan(built)

    assert result.outcome is Outcome.FAILED
    assert words in result.evidence
    assert result.where
    assert result.where.layer == layer
    assert result.remedy
    assert "> " in (result.excerpt or "")


@pytest.mark.parametrize("name", OFF_FOR_GOOD)
def test_and_off_with(name: str) -> None:
    built = OFF_FOR_GOOD[name]()
    onnx.checker.check_model(built)

    result = scan(built)

    assert result.outcome is Outcome.PASSED, result.evidence


def test_every_live_node_is_counted_and_the_first_is_named() -> None:
    result = scan(net(dropout(y="a"), node("Dropout", "a half on", "b", name="second"), node("RandomNormalLike", "b")))

    assert result.evidence.endswith("in layer 'drop' (node drop) (and 2 more such nodes)")


def test_a_function_is_judged_at_each_of_its_calls() -> None:
    built = called("off")
    built.graph.node.append(node("Drop", "x half on", "z", domain=LOCAL, name="other_call"))

    result = scan(built)

    assert result.where
    assert result.where.layer == "other_call"
