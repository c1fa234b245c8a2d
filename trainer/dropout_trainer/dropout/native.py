"""Back to torch's own classes, before an export."""

from torch import nn

from dropout_trainer.dropout.added import added_to
from dropout_trainer.dropout.fast import FastDropout


def to_native(model: nn.Module) -> None:
    """Makes every FastDropout an nn.Dropout again, in place. What a plan has added stays: it is the identity in eval mode."""
    for module in list(model.modules()):
        layers: list[nn.Module] = [module, *(dropout for _, dropout in added_to(module))]
        for layer in layers:
            if type(layer) is FastDropout:
                layer.__class__ = nn.Dropout  # type: ignore[assignment]
