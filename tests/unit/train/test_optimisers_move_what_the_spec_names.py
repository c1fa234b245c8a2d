"""Each parameter has the rate of the first group that names it, moves as its scheduler says, and a frozen one does not move."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from dropout_api.names import ExitCode
from dropout_api.training import Optimizer, Scheduler
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.optimizers import LearningRate, factor, make_optimizer


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 3)


def test_the_first_group_that_matches_decides_and_the_rest_has_the_specs_rate() -> None:
    model = Net()
    groups = [{"match": "*.bias", "weightDecay": 0}, {"match": "features.*", "learningRate": 0.01}]
    optimizer = make_optimizer(model, Optimizer.model_validate({"learningRate": 0.1, "weightDecay": 0.5, "groups": groups}))
    found = {id(parameter): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for parameter in group["params"]}
    assert {name: found[id(parameter)] for name, parameter in model.named_parameters()} == {
        "features.0.weight": (0.01, 0.5), "features.0.bias": (0.1, 0), "features.1.weight": (0.01, 0.5), "features.1.bias": (0.1, 0),
        "head.weight": (0.1, 0.5), "head.bias": (0.1, 0),
    }


@pytest.mark.parametrize("name", ["AdamW", "Adam"])
def test_adams_one_kernel_moves_weights_as_torchs_default_does(name: str) -> None:
    mine, theirs = nn.Linear(6, 3), nn.Linear(6, 3)
    theirs.load_state_dict(mine.state_dict())
    numbers = {"learningRate": 0.01, "weightDecay": 0.1}
    optimizers = [
        make_optimizer(mine, Optimizer.model_validate({"name": name, **numbers})),
        getattr(torch.optim, name)(theirs.parameters(), lr=0.01, weight_decay=0.1, fused=False),
    ]
    for inputs in torch.randn(20, 16, 6, generator=torch.Generator().manual_seed(3)):
        for model, optimizer in zip((mine, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-6)


def test_a_model_with_complex_weights_is_trained(train: Any) -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6, 3, dtype=torch.complex64))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.view_as_real(inputs.to(torch.complex64) @ self.weight).sum(-1)

    assert not torch.equal(train(Waves).model.weight.detach(), torch.ones(6, 3, dtype=torch.complex64))


@pytest.mark.parametrize(("training", "message"), [
    ({"optimizer": {"groups": [{"match": "body.*"}]}}, r"optimizer.groups\[0\].match: 'body.\*' fits no parameter .*: 0.weight"),
    ({"freeze": ["*", "body"]}, r"freeze\[1\]: 'body' fits no parameter"),
    ({"freeze": ["*"]}, "spec.training.freeze: leaves no parameter to train"),
    ({"optimizer": {"groups": [{"match": "*"}, {"match": "*.bias"}]}}, r"groups\[1\].match: '\*.bias' fits .* in no group before it"),
])
def test_a_pattern_that_matches_nothing_is_refused(train: Any, training: dict[str, Any], message: str) -> None:
    with pytest.raises(StageFailure, match=message):
        train(**training)


def test_frozen_layers_and_the_statistics_of_their_norms_stay_to_the_bit(train: Any) -> None:
    made = []

    def net() -> nn.Module:
        made.append(Net())
        made.append({name: tensor.clone() for name, tensor in made[0].state_dict().items()})
        return made[0]

    after = train(net, freeze=["features.*"]).model.state_dict()
    assert {name for name, tensor in made[1].items() if not torch.equal(tensor, after[name])} == {"head.weight", "head.bias"}


def test_a_norm_that_is_not_frozen_keeps_learning_its_statistics(train: Any) -> None:
    after = train(Net, freeze=["features.0.*"]).model.state_dict()
    assert not torch.equal(after["features.1.running_mean"], torch.zeros(8))


@pytest.mark.parametrize(("scheduler", "expected"), [
    ({}, [1, 1, 1, 1, 1]),
    ({"name": "Cosine"}, [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2, 0]),
    ({"name": "Cosine", "minFactor": 0.2}, [1, 0.6 + 0.4 * math.cos(math.pi / 4), 0.6, 0.6 - 0.4 * math.cos(math.pi / 4), 0.2]),
    ({"name": "Step", "stepEpochs": 4, "gamma": 0.5}, [1, 1, 0.5, 0.5, 0.25]),
    ({"name": "Step", "stepEpochs": 2, "gamma": 0.1, "minFactor": 0.05}, [1, 0.1, 0.05, 0.05, 0.05]),
])
def test_factors_of_the_rate_at_each_quarter(scheduler: dict[str, Any], expected: list[float]) -> None:
    spec = Scheduler.model_validate(scheduler)
    assert [factor(spec, step, 80, 10) for step in (0, 20, 40, 60, 80)] == pytest.approx(expected)


def test_warm_up_rises_in_a_line_and_then_the_scheduler_begins() -> None:
    spec = Scheduler.model_validate({"name": "Cosine", "warmupEpochs": 1})
    assert [factor(spec, step, 24, 4) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factor(spec, 14, 24, 4) == pytest.approx(0.5)  # half way of what is left after the warm-up


def test_one_cycle_is_torchs_own() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=101, cycle_momentum=False)
    spec = Scheduler(name="OneCycle")
    for step in range(101):
        assert 0.1 * factor(spec, step, 101, 1) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        if step < 100:
            theirs.step()


def test_every_group_keeps_its_share() -> None:
    model = Net()
    optimizer = make_optimizer(model, Optimizer.model_validate({"learningRate": 0.1, "groups": [{"match": "head.*", "learningRate": 1}]}))
    rate = LearningRate(optimizer, Scheduler(name="Cosine"), 100, 10)
    rate.at(50)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])
    assert rate.now == pytest.approx(0.05)


def test_accumulated_batches_make_the_step_of_one_large_batch(train: Any) -> None:
    def net() -> nn.Module:
        return nn.Linear(6, 3)

    large = train(net, batch_size=20, epochs=3, optimizer={"name": "SGD"})
    small = train(net, batch_size=5, epochs=3, optimizer={"name": "SGD"}, gradient_accumulation=4)
    for mine, theirs in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bfloat16_learns_and_leaves_float32_weights(train: Any) -> None:
    trained = train(precision="BFloat16", epochs=8, optimizer={"learning_rate": 0.02})
    assert trained.curve[-1].train_loss < trained.curve[0].train_loss
    assert {parameter.dtype for parameter in trained.model.parameters()} == {torch.float32}
    assert trained.curve != train(epochs=8, optimizer={"learning_rate": 0.02}).curve


def test_float16_without_a_gpu_is_refused(train: Any) -> None:
    with pytest.raises(StageFailure, match=r"spec.training.precision: Float16 needs a GPU") as end:
        train(precision="Float16")
    assert end.value.exit_code == ExitCode.SPEC_INVALID
