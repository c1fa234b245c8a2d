"""For tests of models: an assertion that a model is in eval mode. Torch is loaded when it is called, not when it is imported."""

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn


def assert_eval_mode(
    model: "nn.Module", example: Any, *, batch_dim: int | Literal["auto"] | None = "auto", require_export: bool = False,
) -> None:
    """The model, as it is now, has no live dropout, uses no batch statistics, draws nothing at random, and scales its dropout rightly.

    `example` is a tensor, a tuple of arguments or a mapping of keyword arguments, with at least two rows where it has rows;
    `batch_dim` is the dimension that counts them, None where there is none. With `require_export` a model that torch.export
    cannot take fails too. The model's modes, weights and buffers, and all random streams, are afterwards what they were.
    Raises AssertionError that says what is wrong, where, and what to do. What could not be shown is wrong, too.
    """
    __tracebackhide__ = True
    from dropout_trainer.check.examples import call_of
    from dropout_trainer.check.models import judge
    from dropout_trainer.check.preserve import preserved, untraced
    from dropout_trainer.check.terminal import brief
    from dropout_trainer.gate.local import Options

    with preserved(model), untraced():
        report = judge(model, call_of(example), Options(batch_dim=batch_dim, as_is=True, require_export=require_export))
    if not report.passed:
        raise AssertionError(f"{type(model).__name__} is not known to be in eval mode\n{brief(report.failed)}")
