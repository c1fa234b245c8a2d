from pathlib import Path

import pytest
from dropout_testing import zoo

from dropout_trainer.gate.gate import examine


@pytest.mark.parametrize("name", zoo.SOUND)
def test_a_network_with(name: str, tmp_path: Path) -> None:
    sound = zoo.SOUND[name]

    report = examine(zoo.subject(tmp_path, sound.build(), integers=sound.integers))

    assert report.passed, report.message
    assert report.metrics["test_accuracy"] == 1.0
