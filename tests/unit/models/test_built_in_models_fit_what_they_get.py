"""Built-in models take raw values, answer in the data's own units, and name each place of dropout as a plan would."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dropout_api.spec import ModelSpec
from dropout_trainer.data import Data, Split, scaling_of
from dropout_trainer.dropout.layers import StochasticDepth
from dropout_trainer.errors import StageFailure
from dropout_trainer.models.transformer import sinusoids
from dropout_trainer.train.factories import build_model

ROWS = 12
CLASSES = torch.arange(ROWS) % 3
FLOATS = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(1))
SEQUENCES = torch.randn(ROWS, 7, 4, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(1, 20, (ROWS, 7), generator=torch.Generator().manual_seed(1))
IMAGES = torch.rand(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(1))
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [8, 4]}, "cnn": {"channels": [4, 4], "dense": 8}, "resnet": {"blocks": [1, 2], "width": 4},
    "transformer": {"width": 8, "heads": 2, "feedforward": 8}, "lstm": {"hidden": 8, "layers": 2, "embedding": 4},
}
TAKES = [
    ("mlp", FLOATS), ("mlp", SEQUENCES), ("mlp", IMAGES), ("cnn", IMAGES), ("resnet", IMAGES), ("transformer", SEQUENCES),
    ("transformer", TOKENS), ("lstm", SEQUENCES), ("lstm", TOKENS),
]
SCALED = [(name, inputs) for name, inputs in TAKES if inputs.dim() < 4 and inputs.is_floating_point()]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def data(inputs: Tensor, targets: Tensor = CLASSES, **more: Any) -> Data:
    split = Split(inputs, targets)
    return Data(split, split, split, **more)


def build(name: str, held: Data, outputs: int = 3, **args: Any) -> nn.Module:
    return build_model(ModelSpec.model_validate({"factory": name, "args": SMALL[name] | args}), held, outputs).eval()


@pytest.mark.parametrize(("name", "inputs"), TAKES)
def test_any_number_of_rows_is_answered_each_by_itself(name: str, inputs: Tensor) -> None:
    model = build(name, data(inputs))
    together = model(inputs)
    assert together.shape == (ROWS, 3)
    assert torch.allclose(model(inputs[4:5]), together[4:5], atol=1e-5)


@pytest.mark.parametrize(("name", "inputs"), SCALED)
def test_raw_values_are_standardised_by_the_model(name: str, inputs: Tensor) -> None:
    raw = inputs * torch.logspace(-1, 4, inputs.shape[-1]) + 500
    torch.manual_seed(1)
    scaled = build(name, data(raw, scaling=scaling_of(raw)))
    torch.manual_seed(1)
    plain = build(name, data(inputs))
    mean, deviation = raw.double().flatten(0, -2).mean(0), raw.double().flatten(0, -2).std(0, correction=0)
    assert torch.allclose(scaled(raw), plain(((raw.double() - mean) / deviation).float()), atol=1e-3)
    assert {name for name, _ in scaled.named_buffers()} >= {"standardise.mean", "standardise.deviation"}


@pytest.mark.parametrize(("name", "inputs"), TAKES)
def test_values_are_answered_in_the_targets_own_units(name: str, inputs: Tensor) -> None:
    targets = torch.stack([torch.linspace(1e4, 2e4, ROWS), torch.linspace(-0.01, 0.01, ROWS)], 1)
    model = build(name, data(inputs, targets), 2)
    away = (model(inputs) - targets.mean(0)) / targets.std(0)
    assert float(away.detach().abs().max()) < 10


def test_a_values_quantiles_share_its_units() -> None:
    targets = torch.stack([torch.linspace(90, 110, ROWS), torch.linspace(-1, 1, ROWS)], 1)
    rescale = build("mlp", data(FLOATS, targets), 6).rescale
    assert rescale.mean.tolist() == pytest.approx([100, 100, 100, 0, 0, 0], abs=1e-6)  # type: ignore[union-attr, operator]
    assert rescale.deviation[:3].unique().numel() == 1  # type: ignore[union-attr, index, operator]


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_padding_changes_no_answer(name: str) -> None:
    short = TOKENS.clone()
    short[:, 4:] = 0
    model = build(name, data(TOKENS))
    with torch.no_grad():
        (model.embedding.table.weight)[0] = 7.0  # type: ignore[union-attr, index, operator]
        other = model(short)
        (model.embedding.table.weight)[0] = 0.0  # type: ignore[union-attr, index, operator]
        assert torch.allclose(model(short), other, atol=1e-5)
        assert not torch.allclose(model(TOKENS), other, atol=1e-3)


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_a_row_of_padding_alone_is_answered_and_tells_nothing_to_others(name: str) -> None:
    model, padded = build(name, data(TOKENS)), TOKENS.clone()
    padded[3] = 0
    answers = model(padded)
    assert bool(answers.isfinite().all())
    assert torch.allclose(answers[4:], model(TOKENS)[4:], atol=1e-5)


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_numbers_outside_of_the_vocabulary_count_as_unknown(name: str) -> None:
    vocabulary = ("<pad>", "<unknown>", *(f"word{number}" for number in range(18)))
    model, unknown, strange = build(name, data(TOKENS, vocabulary=vocabulary)), TOKENS.clone(), TOKENS.clone()
    unknown[:, 2] = 1
    for number in (20, 10**12, -1):
        strange[:, 2] = number
        assert torch.equal(model(strange), model(unknown))


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_order_matters(name: str) -> None:
    model = build(name, data(TOKENS))
    assert not torch.allclose(model(TOKENS.flip(1)), model(TOKENS), atol=1e-3)


DROPOUTS: dict[str, Callable[[nn.Module], bool]] = {
    "p": lambda module: isinstance(module, nn.modules.dropout._DropoutNd | StochasticDepth),
    "attention_dropout": lambda module: hasattr(module, "attention_dropout"),
    "dropout": lambda module: isinstance(module, nn.RNNBase),
}


@pytest.mark.parametrize(("name", "inputs", "args", "rates"), [
    ("mlp", FLOATS, {"dropout": 0.3}, {"hidden1.dropout": 0.3, "hidden2.dropout": 0.3}),
    ("cnn", IMAGES, {}, {"features.block1.dropout": 0.1, "features.block2.dropout": 0.1, "classifier.dropout": 0.5}),
    ("resnet", IMAGES, {"stochastic_depth": 0.3, "dropout": 0.2}, {
        "stage1.block1.stochastic_depth": 0.1, "stage2.block1.stochastic_depth": 0.2, "stage2.block2.stochastic_depth": 0.3, "dropout": 0.2,
    }),
    ("transformer", TOKENS, {"attention_dropout": 0.2}, {
        "dropout": 0.1, "layers.0.attention": 0.2, "layers.0.feedforward.dropout": 0.1, "layers.1.attention": 0.2,
        "layers.1.feedforward.dropout": 0.1,
    }),
    ("lstm", TOKENS, {"dropout": 0.4}, {"recurrent": 0.4, "dropout": 0.4}),
])
def test_places_of_dropout_have_names_and_rates(name: str, inputs: Tensor, args: dict[str, Any], rates: dict[str, float]) -> None:
    found = {
        layer: getattr(module, attribute) for layer, module in build(name, data(inputs), **args).named_modules()
        for attribute, is_there in DROPOUTS.items() if is_there(module)
    }
    assert found == pytest.approx(rates)


@pytest.mark.parametrize(("name", "inputs", "layer"), [
    ("mlp", FLOATS, "hidden1.dropout"), ("cnn", IMAGES, "features.block1.dropout"), ("resnet", IMAGES, "stage2.block2.stochastic_depth"),
    ("transformer", TOKENS, "layers.0.attention"), ("transformer", SEQUENCES, "layers.1.feedforward.dropout"),
    ("lstm", TOKENS, "recurrent"), ("lstm", SEQUENCES, "dropout"),
])
def test_each_rate_acts_in_training_alone(name: str, inputs: Tensor, layer: str) -> None:
    model = build(name, data(inputs))
    for path, module in model.named_modules():
        for attribute, is_there in DROPOUTS.items():
            if is_there(module):
                setattr(module, attribute, 0.5 if path == layer else 0.0)
    assert torch.equal(model(inputs), model(inputs))
    for module in model.modules():
        module.training = not isinstance(module, nn.modules.batchnorm._BatchNorm)
    assert not torch.equal(model(inputs), model(inputs))


def test_selu_gets_alpha_dropout_and_keeps_the_variance() -> None:
    inputs = torch.randn(2000, 200)
    model = build("mlp", data(inputs[:ROWS]), hidden=[200] * 8, activation="SELU", dropout=0.05)
    assert {type(module) for module in model.modules()} >= {nn.SELU, nn.AlphaDropout}
    hidden = model[:-1](inputs).detach()  # type: ignore[index, operator]
    assert 0.8 < float(hidden.std()) < 1.2
    assert abs(float(hidden.mean())) < 0.1


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 2, 5), (1, 1, 1)])
@pytest.mark.parametrize(("name", "args"), [("cnn", {"channels": [2, 3, 4, 5]}), ("resnet", {"blocks": [1, 1, 1, 1]})])
def test_images_of_any_size_are_taken(name: str, args: dict[str, Any], shape: tuple[int, int, int]) -> None:
    inputs = torch.rand(ROWS, *shape)
    assert build(name, data(inputs), **args).train()(inputs).shape == (ROWS, 3)


@pytest.mark.parametrize(("name", "inputs", "says"), [
    ("mlp", TOKENS, "mlp takes float32 inputs, but the data have int64; use transformer, lstm or a model of your own"),
    ("cnn", FLOATS, r"cnn needs images of \[channels, height, width\], but a row of the data is \[6\]; use mlp"),
    ("resnet", SEQUENCES, r"resnet needs images of .*, but a row of the data is \[7, 4\]; use mlp"),
    ("transformer", FLOATS, r"transformer needs token numbers \[length\] of int64 or .* is \[6\] of float32; use mlp or cnn"),
    ("lstm", IMAGES, r"lstm needs token numbers .* is \[3, 8, 8\] of float32; use mlp or cnn"),
])
def test_data_that_a_model_cannot_take_are_told(name: str, inputs: Tensor, says: str) -> None:
    with pytest.raises(StageFailure, match=f"spec.model.factory: {says}"):
        build(name, data(inputs))


def test_positions_differ_and_keep_to_the_papers_formula() -> None:
    table = sinusoids(50, 9) * 3
    assert table.shape == (50, 9)
    assert len({tuple(row) for row in table.tolist()}) == 50
    assert table[3, 2].item() == pytest.approx(torch.sin(torch.tensor(3 / 10_000 ** (2 / 9))).item(), abs=1e-6)
    assert table[3, 5].item() == pytest.approx(torch.cos(torch.tensor(3 / 10_000 ** (4 / 9))).item(), abs=1e-6)


@pytest.mark.parametrize(("name", "inputs"), TAKES)
def test_a_step_can_be_repeated_to_the_bit_under_strict_determinism(name: str, inputs: Tensor) -> None:
    def stepped() -> dict[str, Tensor]:
        torch.manual_seed(5)
        model = build(name, data(inputs)).train()
        optimizer = torch.optim.AdamW(model.parameters())
        nn.functional.cross_entropy(model(inputs), CLASSES).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return model.state_dict()

    torch.use_deterministic_algorithms(True)
    try:
        first, second = stepped(), stepped()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[key], second[key]) for key in first)
