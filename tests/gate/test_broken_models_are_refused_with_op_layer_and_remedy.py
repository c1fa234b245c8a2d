import pytest
from dropout_testing import zoo
from dropout_testing.zoo.entries import judge

from dropout_api.verdict import Outcome


@pytest.mark.parametrize("name", zoo.BROKEN)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_with(name: str) -> None:
    broken = zoo.BROKEN[name]

    report = judge(broken)

    assert not report.passed
    first = report.failed[0]
    assert (first.name, first.outcome) == (broken.check, Outcome.FAILED)
    assert all(word in report.message for word in broken.words.split("|")), report.message
    assert first.remedy
