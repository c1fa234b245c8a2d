"""People with the right to register can do so by hand; `dropout audit` tells those versions from the gate's, and disarms them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from dropout_testing import zoo
from mlflow import MlflowClient

from dropout_api.names import ExitCode, Tag
from dropout_api.verdict import Verdict
from dropout_trainer.verify import audit
from dropout_trainer.verify.audit import Row, Wish

Registered = Callable[..., str]
Audited = Callable[..., tuple[int, dict[str, Row]]]
PICKLE_WARNING = "ignore:Saving pytorch model by Pickle"


@pytest.fixture
def by_hand(client: MlflowClient) -> Callable[..., None]:
    """Registers a network with plain MLflow, in the mode in which it is."""
    def make(name: str, network: torch.nn.Module, **options: Any) -> None:
        mlflow.set_experiment("team.digits")
        with mlflow.start_run():
            mlflow.pytorch.log_model(
                network, name="model", input_example=np.zeros((4, zoo.FEATURES), "float32"), registered_model_name=name,
                pip_requirements=["torch"], **options)

    return make


@pytest.fixture
def live() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(zoo.FEATURES, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, zoo.CLASSES)).train()


@pytest.fixture
def audited(capsys: pytest.CaptureFixture[str], keys: Any) -> Audited:
    """Exit code and rows by URI, of `dropout audit --json --key FILE`."""
    def run(*models: str, key: bool = True, **wish: Any) -> tuple[int, dict[str, Row]]:
        capsys.readouterr()
        code = audit.main(Wish(models, str(keys.public) if key else None, as_json=True, **wish))
        rows = [Row.model_validate(row) for row in json.loads(capsys.readouterr().out)["rows"]]
        return code, {f"{row.model}/{row.version}": row for row in rows}

    return run


def outcomes(row: Row) -> dict[str, str]:
    return {check.name: check.outcome.value for check in row.checks}


def test_but_not_what_the_gate_has_passed(registered: Registered, audited: Audited) -> None:
    registered("audited", export={"alias": "champion"})

    code, rows = audited("team.audited")

    row = rows["team.audited/1"]
    assert (code, row.verdict, row.aliases) == (ExitCode.OK, Verdict.PASSED, ["champion"])
    assert outcomes(row) == dict.fromkeys(("statement", "files", "tags", "signature", "provenance", "eval"), "Passed")
    provenance = row.check("provenance")
    assert provenance is not None
    assert "seed 42" in provenance.evidence


def test_with_the_op_that_is_live(by_hand: Callable[..., None], live: torch.nn.Module, audited: Audited) -> None:
    by_hand("hand.live", live)

    code, rows = audited("hand.live")

    row = rows["hand.live/1"]
    assert (code, row.verdict) == (ExitCode.REJECTED, Verdict.FAILED)
    assert (outcomes(row)["statement"], outcomes(row)["graph"]) == ("Failed", "Failed")
    assert "aten.dropout (train=True, p=0.5)" in row.reason
    assert "made around the gate" in row.reason


@pytest.mark.filterwarnings(PICKLE_WARNING)
def test_and_never_loads_a_pickle(by_hand: Callable[..., None], live: torch.nn.Module, audited: Audited) -> None:
    by_hand("hand.pickled", live, serialization_format="pickle")

    row = audited("hand.pickled")[1]["hand.pickled/1"]

    behaviour = row.check("eval")
    assert behaviour is not None
    assert (row.verdict, behaviour.outcome.value) == (Verdict.FAILED, "CouldNotRun")
    assert "loading 'data/model.pth' would run its code" in behaviour.evidence


def test_when_its_tags_were_forged_to_look_gated(
    by_hand: Callable[..., None], live: torch.nn.Module, registered: Registered, audited: Audited, client: MlflowClient,
) -> None:
    registered("genuine")
    by_hand("hand.forged", live.eval())
    for name, value in client.get_model_version("team.genuine", "1").tags.items():
        client.set_model_version_tag("hand.forged", "1", name, value)

    row = audited("hand.forged", key=False)[1]["hand.forged/1"]

    assert (row.verdict, outcomes(row)["statement"], outcomes(row)["eval"]) == (Verdict.FAILED, "Failed", "Passed")
    assert f"its tag {Tag.STATEMENT_DIGEST} says otherwise" in row.reason


def test_and_a_byte_that_was_changed(registered: Registered, audited: Audited, files_of: Callable[[str], Path]) -> None:
    path = files_of(registered("spoilt")) / "artifacts/eval.pt2"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    code, rows = audited("team.spoilt")

    found = outcomes(rows["team.spoilt/1"])
    assert (code, found["files"], found["signature"]) == (ExitCode.REJECTED, "Failed", "Failed")


def test_and_quarantine_takes_its_aliases_and_nothing_else(
    by_hand: Callable[..., None], live: torch.nn.Module, registered: Registered, audited: Audited, client: MlflowClient,
) -> None:
    registered("mixed", export={"alias": "champion"})
    by_hand("team.mixed", live)
    for alias in ("newest", "serving"):
        client.set_registered_model_alias("team.mixed", alias, "2")

    before = audited("team.mixed")[1]["team.mixed/2"]
    first = audited("team.mixed", quarantine=True)[1]
    tags = client.get_model_version("team.mixed", "2").tags
    again = audited("team.mixed", quarantine=True)[1]

    assert (before.aliases, before.quarantined) == (["newest", "serving"], False)
    assert [first[f"team.mixed/{number}"].quarantined for number in (1, 2)] == [False, True]
    assert [again[f"team.mixed/{number}"].quarantined for number in (1, 2)] == [False, False]
    assert {name: str(number) for name, number in client.get_registered_model("team.mixed").aliases.items()} == {"champion": "1"}
    assert tags[Tag.QUARANTINED].startswith("statement: there is no gate/verdict.json")
    assert client.get_model_version("team.mixed", "2").tags == tags
    assert Tag.QUARANTINED not in client.get_model_version("team.mixed", "1").tags
    assert len(client.search_model_versions("name = 'team.mixed'")) == 2


def test_and_an_alias_that_is_set_again_is_taken_again(
    by_hand: Callable[..., None], live: torch.nn.Module, audited: Audited, client: MlflowClient,
) -> None:
    by_hand("hand.stubborn", live)
    for _ in range(2):
        client.set_registered_model_alias("hand.stubborn", "champion", "1")
        assert audited("hand.stubborn", quarantine=True)[1]["hand.stubborn/1"].quarantined
        assert not client.get_registered_model("hand.stubborn").aliases


@pytest.fixture
def unreadable(client: MlflowClient, files_of: Callable[[str], Path], registered: Registered) -> Iterator[str]:
    """A version whose files cannot be fetched: its place in the store is a file."""
    uri = registered("unreadable")
    folder = files_of(uri)
    shutil.move(folder, folder.with_name("gone"))
    folder.write_text("")
    yield uri
    folder.unlink()
    shutil.move(folder.with_name("gone"), folder)


def test_while_one_broken_version_is_a_row_of_its_own(unreadable: str, registered: Registered, audited: Audited) -> None:
    registered("readable")

    code, rows = audited("team.unreadable", "team.readable")

    assert rows["team.unreadable/1"].verdict is not Verdict.PASSED
    assert rows["team.readable/1"].verdict is Verdict.PASSED
    assert code != ExitCode.OK


def test_while_a_version_beyond_the_limit_is_undecided(
    registered: Registered, audited: Audited, files_of: Callable[[str], Path],
) -> None:
    largest = (files_of(registered("large")) / "artifacts/eval.pt2").stat().st_size

    code, rows = audited("team.large", limit_gib=(largest - 1) / 2**30)

    found = outcomes(rows["team.large/1"])
    assert (code, rows["team.large/1"].verdict) == (ExitCode.UNDECIDED, Verdict.COULD_NOT_RUN)
    assert {name for name, outcome in found.items() if outcome == "CouldNotRun"} == {"files", "signature", "eval"}
    assert found["statement"] == "Passed"


def test_and_goes_through_the_whole_registry(registered: Registered, audited: Audited, client: MlflowClient) -> None:
    registered("whole")

    rows = audited()[1]

    assert set(rows) == {f"{version.name}/{version.version}" for version in client.search_model_versions("")}


def test_while_a_model_that_is_not_there_is_a_wrong_argument(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(Wish(("team.nowhere",))) == ExitCode.USAGE
    assert "TargetInvalid: team.nowhere is unknown to MLflow" in capsys.readouterr().err


def test_and_the_table_has_a_row_for_each_and_a_line_for_what_is_wrong(
    by_hand: Callable[..., None], live: torch.nn.Module, registered: Registered, capsys: pytest.CaptureFixture[str], keys: Any,
) -> None:
    registered("shown", export={"alias": "champion"})
    by_hand("team.shown", live)
    capsys.readouterr()

    assert audit.main(Wish(("team.shown",), str(keys.public))) == ExitCode.REJECTED

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", "aliases", "gated", "files", "tags", "signature", "config", "eval", "mode", "verdict"]
    assert lines[1].split() == ["team.shown/1", "champion", *["passed"] * 7]
    assert lines[2].split() == ["team.shown/2", "failed", "–", "–", "failed", "failed", "failed", "failed"]
    assert any(line.startswith("team.shown/2: statement: there is no gate/verdict.json") for line in lines)
