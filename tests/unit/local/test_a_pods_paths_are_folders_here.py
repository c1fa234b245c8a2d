"""Where a pod would mount a volume, a folder of this machine is read; a path that only the cluster has is refused with its field."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dropout_api.names import ExitCode
from dropout_api.pod import PodTemplate
from dropout_api.spec import JobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.local.volumes import Mounts, config_maps, given_environment, translated
from dropout_trainer.manifest import parse_manifests

POD = PodTemplate.model_validate({
    "env": [{"name": "PYTHONPATH", "value": "/code"}, {"name": "WORDS", "value": "/data/words.txt"}, {"name": "LEVEL", "value": "3"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "datasets"}}, {"name": "code", "configMap": {"name": "modules"}},
                {"name": "scratch", "emptyDir": {}}],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "code", "mountPath": "/code/"},
                     {"name": "data", "mountPath": "/data/deep", "subPath": "below"}, {"name": "scratch", "mountPath": "/scratch"}],
})
MAPS = {"modules": {"clinic.py": "RATE = 0.5\n"}}


def mounts(tmp_path: Path, given: Mapping[str, str], pod: PodTemplate = POD) -> Mounts:
    (tmp_path / "claim").mkdir(exist_ok=True)
    return Mounts.of(pod, given, MAPS, tmp_path / "scratch")


def test_the_longest_path_decides_and_others_stay(tmp_path: Path) -> None:
    found = mounts(tmp_path, {"datasets": str(tmp_path / "claim")})
    claim = tmp_path / "claim"
    for text, here in {
        "/data/a.csv": str(claim / "a.csv"), "/data": str(claim), "file:///data/a.csv": f"file://{claim}/a.csv",
        "/data/deep/b.csv": str(claim / "below/b.csv"), "/database/c.csv": "/database/c.csv", "s3://data/d.csv": "s3://data/d.csv",
        "relative/data": "relative/data", "/scratch/e": str(tmp_path / "scratch/scratch/e"),
    }.items():
        assert found.here(text, "spec.data.args.uri") == here


def test_fields_that_the_trainer_reads_are_translated_and_no_other(tmp_path: Path) -> None:
    spec = JobSpec.model_validate({
        "model": {"factory": "a.b:c", "args": {"paths": ["/data/x", 3]}, "weights": {"uri": "/data/w"}},
        "data": {"factory": "csv", "args": {"uri": "/data/a.csv", "target": "y"}}, "checkpoint": {"uri": "/data/kept"},
        "tracking": {"experiment": "data"},
    })
    claim = tmp_path / "claim"
    here = translated(spec, mounts(tmp_path, {"datasets": str(claim)}))
    assert here == JobSpec.model_validate({
        "model": {"factory": "a.b:c", "args": {"paths": [f"{claim}/x", 3]}, "weights": {"uri": f"{claim}/w"}},
        "data": {"factory": "csv", "args": {"uri": f"{claim}/a.csv", "target": "y"}}, "checkpoint": {"uri": f"{claim}/kept"},
        "tracking": {"experiment": "data"},
    })


def test_variables_and_config_maps_are_there_within_the_block_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    before, path = dict(os.environ), sys.path[:]
    code = tmp_path / "scratch/code"
    with given_environment(POD, mounts(tmp_path, {"datasets": str(tmp_path / "claim")})):
        assert os.environ["PYTHONPATH"] == f"{code}{os.pathsep}/mine"
        assert (os.environ["WORDS"], os.environ["LEVEL"]) == (str(tmp_path / "claim/words.txt"), "3")
        assert "TOKEN" not in os.environ
        assert sys.path[0] == str(code)
        assert (code / "clinic.py").read_text() == "RATE = 0.5\n"
    assert (dict(os.environ), sys.path) == (before, path)


def test_config_maps_are_those_of_the_manifest() -> None:
    text = "kind: ConfigMap\nmetadata: {name: modules}\ndata: {a.py: x}\n---\nkind: Secret\nmetadata: {name: s}\n"
    without = "---\nkind: ConfigMap\nmetadata: {generateName: m-}\n---\nkind: ConfigMap\nmetadata: {name: list}\ndata: [a]\n"
    assert config_maps(parse_manifests(text + without)) == {"modules": {"a.py": "x"}}


@pytest.mark.parametrize(("given", "changes", "code", "says"), [
    ({}, {}, ExitCode.DATA_MISSING, "spec.data.args.uri: /data/a.csv lies in the cluster's volume datasets; name a folder for it: "
                                    "--volume datasets=FOLDER"),
    ({"dataset": "."}, {}, ExitCode.USAGE, "dataset is no volume of spec.podTemplate.volumes (there: datasets, modules, scratch)"),
    ({"datasets": "/nowhere"}, {}, ExitCode.DATA_MISSING, "--volume: datasets=/nowhere is no folder"),
    ({}, {"volumes": [{"name": "data", "configMap": {"name": "modules", "items": [{"key": "clinic.py", "path": "../../x.py"}]}}],
          "volumeMounts": [{"name": "data", "mountPath": "/data"}]}, ExitCode.SPEC_INVALID, "../../x.py"),
])
def test_what_is_not_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], changes: dict[str, Any], code: ExitCode, says: str,
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)  # some machine has a /data
    pod = PodTemplate.model_validate(POD.to_wire() | changes)
    with pytest.raises(StageFailure) as failure:
        mounts(tmp_path, given, pod).here("/data/a.csv", "spec.data.args.uri")
    assert (failure.value.exit_code, says in failure.value.message) == (code, True), failure.value.message


def test_a_path_that_this_machine_has_too_is_taken(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pod = PodTemplate.model_validate({
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "datasets"}}],
        "volumeMounts": [{"name": "data", "mountPath": str(tmp_path / "data")}],
    })
    assert mounts(tmp_path, {}, pod).here(f"{tmp_path}/data/a.csv", "spec.data.args.uri") == f"{tmp_path}/data/a.csv"
