"""A checkpoint of a loop of the user's own is of whole epochs: what would make others is told before it has cost an epoch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dropout_testing.own_loops import MakeJob, network

from dropout_trainer.errors import StageFailure


def test_epochs_are_counted_from_1(make_job: MakeJob) -> None:
    job = make_job(keeps=True)
    job.resume(network())
    with pytest.raises(StageFailure, match=r"job\.save: epochs are counted from 1, but this is 0"):
        job.save(0)


def test_the_trainers_default_of_saving_by_steps_is_refused_at_its_start(make_job: MakeJob) -> None:
    from dropout_trainer.loop.hugging_face import DropoutCallback

    test = (torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64))
    callback = DropoutCallback(make_job(keeps=True), network(), test)
    callback.resume_from()
    steps: Any = SimpleNamespace(save_strategy="steps")
    with pytest.raises(StageFailure, match=r"save_strategy='steps'\): .* use 'epoch'"):
        callback.on_train_begin(steps, None, None)
    callback.on_train_begin(SimpleNamespace(save_strategy="epoch"), None, None)
    callback._scratch.cleanup()  # at a program's end the interpreter does it
