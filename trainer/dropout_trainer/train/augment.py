"""Random changes of training batches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from dropout_api.names import ExitCode
from dropout_api.spec import Augmentation
from dropout_trainer.data import Data, Scaling
from dropout_trainer.errors import StageFailure

IMAGE_DIMENSIONS = 3


def check(steps: Sequence[Augmentation], data: Data) -> None:
    """Raises StageFailure for a step that cannot be done on inputs like those of `data`."""
    dtype = str(data.train.inputs.dtype).removeprefix("torch.")
    for number, step in enumerate(steps):
        if unfit := _unfit(step, data):
            what = f"{step.kind} {unfit[0]}, but a row of the data is {list(data.input_shape)} of {dtype}; {unfit[1]}"
            raise StageFailure("SpecInvalid", f"spec.data.augmentation[{number}]: {what}", ExitCode.SPEC_INVALID)


def augment(inputs: Tensor, steps: Sequence[Augmentation], generator: torch.Generator, scaling: Scaling | None = None) -> Tensor:
    """`inputs` [N, ...] after each step in turn; a new tensor on the same device, of the same shape. Noise is in units of the deviations of
    `scaling`, where the data have one: inputs are raw values, of which one feature may be a thousand times another.

    All draws are of `generator`, as many for each batch of a shape, whatever is drawn. Images are [N, channels, height, width]
    (Krizhevsky et al., NeurIPS 2012, for flips and crops; Bishop, Neural Computation 7, 1995, for noise).
    """
    for step in steps:
        match step.kind:
            case "HorizontalFlip":
                inputs = _flip(inputs, step.probability, generator)
            case "RandomCrop":
                inputs = _crop(inputs, step.padding, generator)
            case "Noise":
                noise = torch.randn(inputs.shape, generator=generator, device=generator.device)
                unit = 1.0 if scaling is None else scaling.deviation.to(inputs.device)
                inputs = inputs + step.deviation * unit * noise.to(inputs.device)
    return inputs


def _unfit(step: Augmentation, data: Data) -> tuple[str, str] | None:
    """What a step needs and the data do not have, and the remedy."""
    if not data.train.inputs.is_floating_point():
        return "needs float32 inputs", "leave it out"
    if step.kind != "Noise" and len(data.input_shape) != IMAGE_DIMENSIONS:
        return "needs images [channels, height, width]", "leave it out"
    if step.kind == "RandomCrop" and step.padding >= min(data.input_shape[1:]):
        return f"with padding {step.padding} could leave nothing of an image", "lower padding"
    return None


def _flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(images.shape[0], generator=generator, device=generator.device) < probability
    return torch.where(drawn.to(images.device)[:, None, None, None], images.flip(3), images)


def _crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `padding` pixels either way, zeros where nothing was."""
    rows, channels, height, width = images.shape
    offsets = torch.randint(2 * padding + 1, (2, rows), generator=generator, device=generator.device).to(images.device)
    down = offsets[0, :, None] + torch.arange(height, device=images.device)
    right = offsets[1, :, None] + torch.arange(width, device=images.device)
    row = torch.arange(rows, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return F.pad(images, (padding,) * 4)[row, channel, down[:, None, :, None], right[:, None, None, :]]
