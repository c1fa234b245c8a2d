"""`dropout validate` in this process: files go in; lines, JSON and an exit code come out."""

import io
import json
import sys
from pathlib import Path

import pytest

from dropout_trainer.cli import main

ROOT = Path(__file__).parents[3]
GOOD = ROOT / "crds/samples/digits-cnn.yaml"
BAD = """
apiVersion: training.dropout.dev/v1alpha1
kind: DropoutTrainingJob
metadata: {name: bad}
spec:
  seed: 1
  seed: 2
  model: {factory: mlp, args: {hiden: [1]}}
  data: {factory: sklearn, args: {name: digits}}
  determinism: off
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: training.dropout.dev/v1alpha1
kind: DropoutTrainingJob
metadata: {name: good}
spec:
  model: {factory: mlp}
  data: {factory: sklearn, args: {name: digits}}
  training: {optimizer: {learningRate: 1e-3}}
"""


@pytest.fixture
def bad(tmp_path: Path) -> str:
    (tmp_path / "bad.yaml").write_text(BAD)
    return str(tmp_path / "bad.yaml")


def test_each_job_gets_its_problems_with_field_and_remedy(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", bad, str(GOOD)]) == 78

    assert capsys.readouterr().out.replace(f"{bad}: ", "").splitlines() == [
        "bad: 3 problems", "  seed: stands twice in one mapping, again in line 7; keep one",
        "  spec.determinism: must be one of Strict, WarnOnly, Off (given: false); YAML reads a bare y, n, yes, no, on or off as a boolean: "
        "write it in quotes",
        "  spec.model.args.hiden: there is no such field; did you mean hidden?", "good: valid", f"{GOOD}: digits-cnn: valid",
    ]


def test_json_says_the_same_to_programs(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--json", bad]) == 78

    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert [(job["name"], job["line"], [item["field"] for item in job["problems"]]) for job in file["jobs"]] == [
        ("bad", 1, ["seed", "spec.determinism", "spec.model.args.hiden"]), ("good", 16, [])]


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.read_bytes())))

    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out == "-: digits-cnn: valid\n"


@pytest.mark.parametrize(("text", "code", "says"), [
    (None, 66, "No such file"), ("a: [", 78, "line 1"), ("apiVersion: v1\nkind: ConfigMap\n", 78, "holds no DropoutTrainingJob"),
    ("", 78, "holds no"),
    ("just text", 78, "a manifest is a mapping"),
])
def test_what_is_no_manifest_has_one_line_and_its_exit_code(
    text: str | None, code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "job.yaml"
    if text is not None:
        path.write_text(text)

    assert main(["validate", str(path)]) == code
    (line,) = capsys.readouterr().out.splitlines()
    assert says in line
    assert line.startswith(str(path))
