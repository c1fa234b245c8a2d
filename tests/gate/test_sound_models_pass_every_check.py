import pytest
from dropout_testing import zoo
from dropout_testing.zoo.entries import judge


@pytest.mark.parametrize("name", zoo.SOUND)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_with(name: str) -> None:
    report = judge(zoo.SOUND[name])

    assert report.passed, report.message
