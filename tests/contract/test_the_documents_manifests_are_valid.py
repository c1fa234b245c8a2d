"""Every YAML block of the documents is a job, or a part of a spec, that the operator takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dropout_api.builtins import check_builtins
from dropout_api.names import KIND
from dropout_api.spec import JobSpec

ROOT = Path(__file__).parents[2]
REST: dict[str, Any] = {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}}
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL), 1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_a_job_or_a_part_of_its_spec(block: str) -> None:
    document = yaml.safe_load(block)
    spec = document["spec"] if document.get("kind") == KIND else REST | document
    check_builtins(JobSpec.model_validate(spec))


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 8
