"""`dropout plan` builds data and model as the trainer does and trains nothing."""

import json
from pathlib import Path

import pytest
import torch

from dropout_trainer.cli import main

ROOT = Path(__file__).parents[3]
SAMPLE = str(ROOT / "crds/samples/digits-cnn.yaml")
HEAD = "apiVersion: training.dropout.dev/v1alpha1\nkind: DropoutTrainingJob\nmetadata: {name: job}\nspec:\n"
DIGITS = HEAD + "  data: {factory: sklearn, args: {name: digits}}\n"


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> object:
    strict = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(strict)


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "job.yaml").write_text(text)
    return str(tmp_path / "job.yaml")


def test_a_row_for_each_layer_with_its_rate_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", SAMPLE]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits-cnn: cnn, 53,098 parameters, 10 classes, 1,257 training rows"
    rows = {line.split()[0]: line for line in lines[2:]}
    assert rows.keys() >= {"features.block1.dropout", "features.block2.dropout", "classifier.dropout"}
    assert " 0.4 " in rows["classifier.dropout"]
    assert "rule 2 (classifier.*)" in rows["classifier.dropout"]


def test_json_has_the_rows_as_they_are_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--json", SAMPLE]) == 0

    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert (job["name"], job["task"]["outputs"], job["trainingRows"]) == ("digits-cnn", 10, 1257)
    assert [(row["layer"], row["rate"]) for row in job["plan"]] == [
        ("features.block1.dropout", 0.1), ("features.block2.dropout", 0.1), ("classifier.dropout", 0.4)]


@pytest.mark.parametrize(("spec", "code", "says"), [
    (DIGITS + "  model: {factory: mlp}\n  dropout: {layers: [{match: nope, rate: 0.1}]}\n", 78, "spec.dropout.layers[0]"),
    (DIGITS + "  model: {factory: mpl}\n", 78, "did you mean mlp?"),
    (DIGITS + "  model: {factory: 'nowhere:net'}\n", 78, "no module nowhere"),
    (HEAD + f"  from: {{run: {'a' * 32}}}\n", 78, "trains nothing"),
    (HEAD + "  command: [python, train.py]\n", 78, "built by its program alone"),
    (HEAD + "  model: {factory: cnn}\n  data: {factory: fashion_mnist, args: {path: /nowhere}}\n", 66, "spec.data.args.path"),
])
def test_what_would_end_the_training_is_told_with_its_exit_code(
    spec: str, code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", written(tmp_path, spec)]) == code
    told = capsys.readouterr()
    assert says in told.out + told.err


def test_a_model_without_dropout_has_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plainly.py").write_text("from torch import nn\ndef net(num_classes):\n"
                                         "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    assert main(["plan", written(tmp_path, DIGITS + "  model: {factory: 'plainly:net'}\n")]) == 0
    assert "no layer with dropout" in capsys.readouterr().out


def test_a_rate_that_hurts_is_warned_of_below_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", written(tmp_path, DIGITS + "  model: {factory: mlp}\n  dropout: {rate: 0.9}\n")]) == 0
    out = capsys.readouterr().out
    assert "Fast" in out
    assert "0.9" in out
    assert "JMLR" in out or "half" in out
