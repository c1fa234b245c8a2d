"""But for its masks FastDropout does what nn.Dropout does: gradients, shapes, types, memory, modes; and no program ever holds it."""

import copy
import pickle

import pytest
import torch
from torch import nn

from dropout_trainer.dropout import FastDropout, fast_dropout, to_native


def seeded(inputs: torch.Tensor, rate: float = 0.4, **arguments: bool) -> torch.Tensor:
    torch.manual_seed(0)
    return fast_dropout(inputs, rate, **arguments)


@pytest.mark.parametrize("inplace", [False, True])
def test_first_and_second_gradients_are_right(inplace: bool) -> None:
    inputs = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def function(values: torch.Tensor) -> torch.Tensor:
        return seeded(values * values, inplace=inplace)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_of_every_type_are_the_mask_times_the_scale(dtype: torch.dtype) -> None:
    inputs = torch.ones(1001, dtype=dtype, requires_grad=True)
    outputs = seeded(inputs)
    outputs.backward(torch.ones_like(outputs))
    assert inputs.grad is not None
    assert inputs.grad.dtype == dtype
    assert torch.equal(inputs.grad, outputs)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5, 0, 2), (5, 7), (2, 3, 5, 7), (129, 255)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_any_shape_and_type_comes_back(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    outputs = seeded(torch.ones(shape, dtype=dtype))
    assert (outputs.shape, outputs.dtype) == (shape, dtype)


def test_in_place_is_in_place_and_the_same() -> None:
    inputs = torch.randn(9, 5)
    wanted = seeded(inputs)
    kept = inputs.clone()
    assert seeded(kept, inplace=True) is kept
    assert torch.equal(kept, wanted)
    assert not torch.equal(inputs, wanted)


def test_a_strided_input_is_dropped_by_its_elements() -> None:
    inputs = torch.randn(6, 8)[:, ::2]
    assert torch.equal(seeded(inputs), seeded(inputs.contiguous()))
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert torch.equal(seeded(images), seeded(images.contiguous()))


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_outside_of_0_to_1_is_refused_as_torch_does(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fast_dropout(torch.ones(4), rate)


def test_eval_mode_draws_nothing_and_changes_nothing() -> None:
    layer, inputs, state = FastDropout(0.5).eval(), torch.randn(4, 4), torch.get_rng_state()
    assert torch.equal(layer(inputs), inputs)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [False, True])
def test_a_program_holds_torchs_dropout_in_either_mode(training: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), FastDropout(0.3)).train(training)
    program = torch.export.export(model, (torch.ones(2, 4),))
    calls = [(str(node.target), node.args[1:]) for node in program.graph.nodes if node.op == "call_function"]
    assert calls[1:] == [("aten.dropout.default", (0.3, training))]


def test_a_trace_holds_torchs_dropout() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        traced = torch.jit.trace(nn.Sequential(FastDropout(0.3)), torch.ones(2, 4), check_trace=False)
    assert "aten::dropout" in str(traced.inlined_graph)
    assert "random" not in str(traced.inlined_graph)


def test_a_copy_made_native_is_torchs_class_and_leaves_the_first_fast() -> None:
    model = nn.Sequential(nn.Linear(4, 4), FastDropout(0.3, inplace=True))
    native = copy.deepcopy(model)
    to_native(native)
    assert (type(native[1]), native[1].p, native[1].inplace) == (nn.Dropout, 0.3, True)
    assert type(model[1]) is FastDropout
    assert type(pickle.loads(pickle.dumps(model))[1]) is FastDropout
