"""Killed with SIGKILL at random steps, a training in float16 goes on with the very scale of its gradients: same curve, same bytes."""

from pathlib import Path
from typing import Any

import pytest
from dropout_testing.attempts import Asked, outcome
from dropout_testing.device import GPU

SPEC: dict[str, Any] = {
    "model": {"factory": "dropout_testing.attempts:network"}, "data": {"factory": "dropout_testing.attempts:data"},
    "resourcesPerNode": {"limits": {"cpu": "1", **GPU}}, "checkpoint": {"volumeClaim": "c", "everyEpochs": 1, "everySteps": 4, "keep": 2},
    "training": {"epochs": 12, "batchSize": 8, "precision": "Float16", "gradientAccumulation": 2, "gradientClipNorm": 0.5},
}


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "RMSprop"])
def test_at_some_steps(optimizer: str, tmp_path: Path) -> None:
    spec = SPEC | {"training": SPEC["training"] | {"optimizer": {"name": optimizer, "learningRate": 0.01}}}
    whole = outcome(Asked(spec, str(tmp_path / "whole")))
    kills = [3, 11, 6, 9]
    killed = outcome(Asked(spec, str(tmp_path / "killed"), str(tmp_path / "checkpoints"), kills))
    assert killed.statuses == [-9] * len(kills) + [0]
    assert "refused" not in killed.log
    assert killed.curve == whole.curve
    assert killed.files == whole.files
