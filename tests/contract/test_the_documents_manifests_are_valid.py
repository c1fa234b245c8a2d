"""Every YAML block of the documents is a job, or a part of a spec, that the operator takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dropout_api.names import API_VERSION, GROUP, KIND
from dropout_api.problems.manifests import manifest_problems

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
    whole = {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND, "metadata": {"name": "block"}, "spec": REST | document}
    assert manifest_problems(document if document.get("kind") == KIND else whole) == []


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 8
