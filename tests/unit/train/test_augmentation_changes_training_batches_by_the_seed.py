"""An augmented batch is another one of the same shape, the same for the same generator, and each step does what its name says."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dropout_api.spec import Augmentation
from dropout_trainer.data import Data, Scaling, Split
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.augment import augment, check

IMAGES = torch.arange(1, 1 + 400 * 2 * 3 * 4, dtype=torch.float32).reshape(400, 2, 3, 4)


def changed(inputs: Tensor, *steps: dict[str, Any], seed: int = 0) -> Tensor:
    return augment(inputs, [Augmentation.model_validate(step) for step in steps], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("step", [{"kind": "HorizontalFlip"}, {"kind": "RandomCrop"}, {"kind": "Noise"}])
def test_the_generator_decides_and_the_batch_stays_as_it_was(step: dict[str, Any]) -> None:
    before = IMAGES.clone()
    assert changed(IMAGES, step).shape == IMAGES.shape
    assert torch.equal(changed(IMAGES, step), changed(IMAGES, step))
    assert not torch.equal(changed(IMAGES, step), changed(IMAGES, step, seed=1))
    assert torch.equal(IMAGES, before)


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    changed(IMAGES, {"kind": "HorizontalFlip"}, {"kind": "RandomCrop"}, {"kind": "Noise"})
    assert torch.equal(torch.get_rng_state(), before)


def test_a_flip_mirrors_whole_rows_as_often_as_asked() -> None:
    flipped = changed(IMAGES, {"kind": "HorizontalFlip", "probability": 0.25})
    mirrored = (flipped == IMAGES.flip(3)).flatten(1).all(1)
    assert bool((mirrored | (flipped == IMAGES).flatten(1).all(1)).all())
    assert 60 < int(mirrored.sum()) < 140  # of 400; 4.6 deviations either way
    assert torch.equal(changed(IMAGES, {"kind": "HorizontalFlip", "probability": 1}), IMAGES.flip(3))


def test_a_crop_moves_each_image_as_a_whole_and_fills_with_zeros() -> None:
    cropped = changed(IMAGES, {"kind": "RandomCrop", "padding": 1})
    padded = torch.nn.functional.pad(IMAGES, (1, 1, 1, 1))
    moves = {}
    for row in range(len(IMAGES)):
        fits = [(y, x) for y in range(3) for x in range(3) if torch.equal(cropped[row], padded[row, :, y : y + 3, x : x + 4])]
        assert len(fits) == 1
        moves[fits[0]] = moves.get(fits[0], 0) + 1
    assert len(moves) == 9
    assert min(moves.values()) > 15  # of 44 expected


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    added = changed(torch.full((100, 100), 5.0), {"kind": "Noise", "deviation": 0.3}) - 5
    assert float(added.std()) == pytest.approx(0.3, rel=0.05)
    assert float(added.mean()) == pytest.approx(0, abs=0.02)


def test_noise_is_in_units_of_each_features_deviation() -> None:
    scaling = Scaling(torch.tensor([5e5, 0.0]), torch.tensor([1e5, 0.01]))
    steps = [Augmentation.model_validate({"kind": "Noise", "deviation": 0.5})]
    added = augment(torch.zeros(4000, 2), steps, torch.Generator().manual_seed(0), scaling)
    assert added.std(0).tolist() == pytest.approx([5e4, 0.005], rel=0.05)


def test_steps_are_done_in_their_order() -> None:
    steps: list[dict[str, Any]] = [{"kind": "HorizontalFlip", "probability": 1}, {"kind": "RandomCrop", "padding": 1}]
    assert not torch.equal(changed(IMAGES, *steps), changed(IMAGES, *steps[::-1]))
    assert torch.equal(changed(IMAGES), IMAGES)


@pytest.mark.parametrize(("inputs", "kind", "says"), [
    (torch.zeros(4, 6), "HorizontalFlip", r"HorizontalFlip needs images \[channels, height, width\], but a row .* is \[6\] of float32"),
    (torch.zeros(4, 6, 2), "RandomCrop", r"RandomCrop needs images .* is \[6, 2\] of float32; leave it out"),
    (torch.zeros(4, 1, 9, 4), "RandomCrop", r"RandomCrop with padding 4 could leave nothing .* is \[1, 9, 4\] of float32; lower padding"),
    (torch.zeros(4, 6, dtype=torch.int64), "Noise", r"Noise needs float32 inputs, but a row of the data is \[6\] of int64"),
])
def test_what_the_data_cannot_take_is_told_before_training(inputs: Tensor, kind: str, says: str) -> None:
    split = Split(inputs, torch.tensor([0, 1, 0, 1]))
    steps = [Augmentation(kind="Noise")] * int(kind != "Noise") + [Augmentation.model_validate({"kind": kind})]
    with pytest.raises(StageFailure, match=rf"spec.data.augmentation\[{len(steps) - 1}\]: {says}"):
        check(steps, Data(split, split, split))
    check([Augmentation(kind="RandomCrop", padding=2), Augmentation(kind="Noise")], Data(*(Split(IMAGES, torch.zeros(400).long()),) * 3))
