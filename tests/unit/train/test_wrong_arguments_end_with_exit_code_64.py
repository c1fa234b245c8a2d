import pytest

from dropout_api.names import ExitCode
from dropout_trainer.cli import main


@pytest.mark.parametrize("arguments", [
    ["fly"], ["verify", "--json"], ["verify", "--key", "x"], ["verify", "a", "b"], ["audit", "--limit", "-1"], ["audit", "--limit", "x"],
])
def test_without_doing_anything(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == ExitCode.USAGE
    assert "usage: dropout" in capsys.readouterr().err
