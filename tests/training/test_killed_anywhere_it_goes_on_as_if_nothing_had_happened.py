"""Killed with SIGKILL at random steps, and at each file of a checkpoint, a training comes to the same curve and the same exported bytes
as one that was neither killed nor saved.

Each attempt is a process of its own that does the whole stage.
"""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from dropout_testing.attempts import Asked, outcome
from dropout_testing.device import LIMITS

SOAK = bool(os.environ.get("SOAK"))
KILLS, FEW = 20, 20 if SOAK else 5
"""Of the first case, and of each of the others."""
pytestmark = pytest.mark.timeout(900)  # twenty processes each, on a machine that may be busy
SPEC: dict[str, Any] = {
    "model": {"factory": "dropout_testing.attempts:network"}, "data": {"factory": "dropout_testing.attempts:data"},
    "resourcesPerNode": {"limits": {"cpu": "1", **LIMITS}},
    "checkpoint": {"volumeClaim": "c", "everyEpochs": 1, "everySteps": 4, "keep": 2},
}
AUGMENTED = [{"kind": "HorizontalFlip"}, {"kind": "RandomCrop", "padding": 1}, {"kind": "Noise", "deviation": 0.1}]
CASES: dict[str, dict[str, Any]] = {
    "fast dropout on a schedule, a cosine, early stopping": {
        "dropout": {"implementation": "Fast", "layers": [
            {"match": "8", "rate": 0.5, "schedule": {"kind": "Linear", "startRate": 0.1, "fraction": 0.7}},
            {"match": "0", "kind": "Spatial", "rate": 0.2, "action": "Insert", "schedule": {"kind": "Curriculum", "gamma": 3}}]},
        "training": {"epochs": 12, "batchSize": 8, "scheduler": {"name": "Cosine", "warmupEpochs": 2},
                     "earlyStopping": {"monitor": "val_accuracy", "patience": 8}},
    },
    "native dropout, bfloat16, accumulated and clipped": {
        "dropout": {"implementation": "Native", "rate": 0.3},
        "training": {"epochs": 20, "batchSize": 4, "precision": "BFloat16", "gradientAccumulation": 4, "gradientClipNorm": 0.5,
                     "optimizer": {"name": "SGD", "learningRate": 0.05}},
    },
    "augmentation, RMSprop with groups, one cycle": {
        "training": {"epochs": 12, "batchSize": 8, "scheduler": {"name": "OneCycle"}, "freeze": ["1.*"],
                     "optimizer": {"name": "RMSprop", "groups": [{"match": "*.bias", "weightDecay": 0}]}},
    },
    "cross-validation": {
        "training": {"epochs": 5, "batchSize": 8, "crossValidation": {"folds": 2, "repeats": 2}, "earlyStopping": {"patience": 3}},
    },
}


def spec(name: str) -> dict[str, Any]:
    augmented = {"augmentation": AUGMENTED} if name.startswith("augmentation") else {}
    return SPEC | CASES[name] | {"data": SPEC["data"] | augmented}


@pytest.mark.parametrize("name", CASES)
def test_at_random_steps(name: str, tmp_path: Path) -> None:
    whole = outcome(Asked(spec(name), str(tmp_path / "whole")))
    steps = random.Random(name)
    kills = [steps.randint(1, 12) for _ in range(KILLS if name == next(iter(CASES)) else FEW)]
    killed = outcome(Asked(spec(name), str(tmp_path / "killed"), str(tmp_path / "checkpoints"), kills))
    assert killed.statuses == [-9] * len(kills) + [0]
    assert killed.log.count("goes on from") >= len(kills) // 2
    assert killed.curve == whole.curve
    assert killed.files == whole.files
    assert "refused" not in killed.log


def test_at_each_file_of_its_checkpoints(tmp_path: Path) -> None:
    name = next(iter(CASES))
    whole = outcome(Asked(spec(name), str(tmp_path / "whole")))
    cuts = list(range(1, 25, 1 if SOAK else 3))
    killed = outcome(Asked(spec(name), str(tmp_path / "killed"), str(tmp_path / "checkpoints"), [], cuts))
    assert killed.statuses == [-9] * len(cuts) + [0]
    assert killed.curve == whole.curve
    assert killed.files == whole.files
    assert "refused" not in killed.log
