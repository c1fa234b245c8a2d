"""Each program of examples/own-loop is its twin without us but for fifteen changed lines at most, and its manifest is valid."""

import difflib
from pathlib import Path

import pytest
import yaml

from dropout_api.spec import JobSpec

EXAMPLES = Path(__file__).parents[2] / "examples/own-loop"
MOST = 15


@pytest.mark.parametrize(("name", "manifest"), [
    ("plain", "plain"), ("with_lightning", "lightning"), ("with_hugging_face", "hugging-face"),
])
def test_changed_lines(name: str, manifest: str) -> None:
    before, after = ((EXAMPLES / f"{name}{suffix}.py").read_text().splitlines() for suffix in ("_before", ""))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert 0 < len(changed) <= MOST, "\n".join(changed)
    spec = JobSpec.model_validate(yaml.safe_load((EXAMPLES / f"{manifest}.yaml").read_text())["spec"])
    assert spec.command == ["python", f"{name}.py"]
