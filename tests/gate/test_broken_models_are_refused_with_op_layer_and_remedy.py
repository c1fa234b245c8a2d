from pathlib import Path

import pytest
from dropout_testing import zoo

from dropout_trainer.gate.gate import examine
from dropout_trainer.gate.verdict import Outcome


@pytest.mark.parametrize("name", zoo.BROKEN)
def test_a_network_with(name: str, tmp_path: Path) -> None:
    broken = zoo.BROKEN[name]

    report = examine(zoo.subject(tmp_path, broken.build(), broken.mode))

    assert not report.passed
    first = report.failed[0]
    assert (first.name, first.outcome) == (broken.check, Outcome.FAILED)
    assert all(word in report.message for word in broken.words.split("|")), report.message
    assert first.remedy
