"""The examples for GitHub and GitLab: valid by the vendors' schemas, and their own shell steps, run as the runners do."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
ACTION, WORKFLOW = EXAMPLES / "github-action/action.yml", EXAMPLES / "github-action/workflow.yml"
GITLAB = EXAMPLES / "gitlab/dropout-check.gitlab-ci.yml"
SHOP = "dropout_testing.shop"


def validate(path: Path, schema: str) -> None:
    command = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", schema, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("path", "schema"), [(ACTION, "vendor.github-actions"), (WORKFLOW, "vendor.github-workflows")])
def test_github_takes(path: Path, schema: str) -> None:
    validate(path, schema)


def test_gitlab_takes_both_documents_of_its_template(tmp_path: Path) -> None:
    for number, document in enumerate(yaml.safe_load_all(GITLAB.read_text())):
        path = tmp_path / f"{number}.yml"
        path.write_text(yaml.safe_dump(document))
        validate(path, "vendor.gitlab-ci")


def test_the_workflow_gives_the_action_inputs_that_it_has_and_all_that_it_needs() -> None:
    action, workflow = yaml.safe_load(ACTION.read_text()), yaml.safe_load(WORKFLOW.read_text())
    given = workflow["jobs"]["eval-mode"]["steps"][-1]["with"]
    needed = {name for name, entry in action["inputs"].items() if entry.get("required")}

    assert needed <= set(given) <= set(action["inputs"])


def test_no_input_is_written_into_a_script() -> None:
    steps = yaml.safe_load(ACTION.read_text())["runs"]["steps"]

    assert not [step["name"] for step in steps if "${{" in step.get("run", "")]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    files: dict[str, str]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `dropout` is this checkout's, as if pip had installed it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "dropout"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dropout_trainer "$@"\n')
    command.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shell(command: list[str], folder: Path, path: str, **variables: str) -> Ran:
    environment = {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "HOME": str(folder)} | variables
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
    return Ran(done.returncode, done.stdout + done.stderr, files)


def github(folder: Path, path: str, **inputs: str) -> Ran:
    """Runs the action's step `Check` with the shell that the runner gives it."""
    folder.mkdir()
    action = yaml.safe_load(ACTION.read_text())
    (step,) = [step for step in action["runs"]["steps"] if step.get("id") == "check"]
    values = {name: entry.get("default", "") for name, entry in action["inputs"].items()} | inputs
    variables = {name: _filled(text, values) for name, text in step["env"].items()}
    files = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    (folder / "step.sh").write_text(step["run"])
    return shell(["bash", "--noprofile", "--norc", "-eo", "pipefail", "step.sh"], folder, path, **variables, **files)


def _filled(text: str, values: dict[str, str]) -> str:
    name = text.removeprefix("${{ inputs.").removesuffix(" }}").split(" ||")[0]
    return values[name]


def gitlab(folder: Path, path: str, targets: str) -> Ran:
    """Runs the job's script, but for the installation, with the variables that the template gives it."""
    folder.mkdir()
    _, jobs = yaml.safe_load_all(GITLAB.read_text().replace("$[[ inputs.targets ]]", targets).replace("$[[ inputs.arguments ]]", ""))
    job: Any = jobs["dropout-check"]
    variables = {name: str(value or "") for name, value in job["variables"].items()}
    script = "\n".join(line for line in job["script"] if "pip install" not in line)
    return shell(["bash", "-eo", "pipefail", "-c", script], folder, path, **variables)


def failures(report: str) -> int:
    return sum(int(suite.attrib["failures"]) for suite in ET.fromstring(report))


def test_githubs_action_fails_for_a_broken_model_beside_a_sound_one(tmp_path: Path, path: str) -> None:
    ran = github(tmp_path / "work", path, targets=f"{SHOP}:OwnExample\n{SHOP}:Live", arguments=f"--example={SHOP}:example\n")

    assert ran.code == 1, ran.out
    assert ran.files["output"] == "exit-code=1\n"
    assert f"{SHOP}:OwnExample: passed" in ran.files["summary"]
    assert f"{SHOP}:Live: failed" in ran.files["summary"]
    assert failures(ran.files["dropout-check/junit.xml"]) > 0
    assert [result["verdict"] for result in json.loads(ran.files["dropout-check/report.json"])["results"]] == ["Passed", "Failed"]


@pytest.mark.parametrize(("allowed", "code"), [("false", 3), ("true", 0)])
def test_githubs_action_lets_what_is_undecided_pass_only_when_it_may(tmp_path: Path, path: str, allowed: str, code: int) -> None:
    (tmp_path / "model.pkl").write_bytes(b"")

    ran = github(tmp_path / "work", path, targets=str(tmp_path / "model.pkl"), **{"allow-undecided": allowed})

    assert (ran.code, ran.files["output"]) == (code, "exit-code=3\n"), ran.out
    assert ("::warning" in ran.out) is (code == 0)


def test_a_target_that_looks_like_a_command_or_an_option_is_only_a_target(tmp_path: Path, path: str) -> None:
    ran = github(tmp_path / "work", path, targets="--help\n$(touch hacked); touch hacked")

    assert ran.code == 64, ran.out
    assert "hacked" not in ran.files


def test_gitlabs_job_fails_for_a_broken_model_and_leaves_its_report(tmp_path: Path, path: str) -> None:
    ran = gitlab(tmp_path / "work", path, f"{SHOP}:sound {SHOP}:live")

    assert ran.code == 1, ran.out
    report = yaml.safe_load_all(GITLAB.read_text())
    place = list(report)[1]["dropout-check"]["artifacts"]["reports"]["junit"]
    assert failures(ran.files[place]) > 0
