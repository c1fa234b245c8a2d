"""Paths of a training pod on this machine: where it mounts a volume, a folder here stands for it."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from dropout_api.names import ExitCode
from dropout_api.pod import ConfigMapSource, PodTemplate, Volume
from dropout_api.spec import JobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.manifest import Document

FILE = "file://"
PYTHONPATH = "PYTHONPATH"
READ = ("model.args", "model.weights.uri", "data.args", "checkpoint.uri", "command")
"""Fields of a spec that may name a path of the pod."""


@dataclass(frozen=True)
class Mount:
    """A path of the pod, and the folder here; None where the cluster alone has what lies there."""

    path: str
    volume: str
    folder: Path | None


@dataclass(frozen=True)
class Mounts:
    """Those of a pod, the longest path first, because it hides what lies below a shorter one."""

    mounts: tuple[Mount, ...] = ()

    @staticmethod
    def of(pod: PodTemplate, given: Mapping[str, str], maps: Mapping[str, Mapping[str, str]], scratch: Path) -> "Mounts":
        """`given` are folders by the names of claims, ConfigMaps and Secrets; `maps` are ConfigMaps of the manifest, whose files are
        written to `scratch`. Raises StageFailure for a folder that is none, and a name that no volume has."""
        volumes = {volume.name: volume for volume in pod.volumes}
        if unknown := given.keys() - {_name(volume) for volume in volumes.values()}:
            names = ", ".join(sorted(_name(volume) for volume in volumes.values())) or "none"
            message = f"--volume: {min(unknown)} is no volume of spec.podTemplate.volumes (there: {names})"
            raise StageFailure("VolumeUnknown", message, ExitCode.USAGE)
        found = []
        for mount in pod.volume_mounts:
            volume = volumes[mount.name]
            folder = _folder(volume, given, maps, scratch)
            path = mount.mount_path.rstrip("/") or "/"
            found.append(Mount(path, _name(volume), folder / mount.sub_path if folder and mount.sub_path else folder))
        return Mounts(tuple(sorted(found, key=lambda mount: len(mount.path), reverse=True)))

    def here(self, text: str, field: str) -> str:
        """`text` with a path of the pod turned into one of this machine; as it is where it lies in no volume.

        Raises StageFailure for a path in a volume that the cluster alone has, unless this machine has that path, too.
        """
        scheme = FILE if text.startswith(FILE) else ""
        path = text.removeprefix(FILE)
        for mount in self.mounts:
            if path != mount.path and not path.startswith(f"{mount.path.rstrip('/')}/"):
                continue
            if mount.folder is not None:
                return scheme + str(mount.folder / path[len(mount.path) :].lstrip("/"))
            if os.path.exists(mount.path):
                return text
            message = f"{field}: {text} lies in the cluster's volume {mount.volume}; name a folder for it: --volume {mount.volume}=FOLDER"
            raise StageFailure("VolumeMissing", message, ExitCode.DATA_MISSING)
        return text


def config_maps(documents: Sequence[Document]) -> dict[str, Mapping[str, str]]:
    """Files by name of the ConfigMaps that stand in the manifest beside its jobs, by the ConfigMap's name."""
    bodies = [document.body for document in documents if document.body.get("kind") == "ConfigMap"]
    named = [(body["metadata"].get("name"), body.get("data") or {}) for body in bodies if isinstance(body.get("metadata"), dict)]
    return {name: data for name, data in named if isinstance(name, str) and isinstance(data, dict)}


def translated(spec: JobSpec, mounts: Mounts) -> JobSpec:
    """`spec` with paths of this machine where the trainer reads: arguments, weights, checkpoints, command. Raises StageFailure."""
    wire: dict[str, Any] = spec.to_wire()
    for place in READ:
        *parents, last = place.split(".")
        held: Any = wire
        for name in parents:
            held = held.get(name) or {}
        if held.get(last) is not None:
            held[last] = _each(held[last], f"spec.{place}", mounts)
    return JobSpec.model_validate(wire)


@contextlib.contextmanager
def given_environment(pod: PodTemplate, mounts: Mounts) -> Iterator[None]:
    """Within the block the variables of the pod that have a plain value are set; modules are also found along its PYTHONPATH.

    Raises StageFailure for a path that the cluster alone has.
    """
    variables = {variable.name: variable.value for variable in pod.env if variable.value is not None}
    field = "spec.podTemplate.env"
    here = {name: os.pathsep.join(mounts.here(part, f"{field} {name}") for part in value.split(os.pathsep)) if name.endswith("PATH")
            else mounts.here(value, f"{field} {name}") for name, value in variables.items()}
    before, path = dict(os.environ), sys.path[:]
    paths = [part for part in here.get(PYTHONPATH, "").split(os.pathsep) if part]
    if paths:
        here[PYTHONPATH] = os.pathsep.join([*paths, *filter(None, [before.get(PYTHONPATH)])])
    os.environ.update(here)
    sys.path[:0] = paths
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        sys.path[:] = path


def _name(volume: Volume) -> str:
    """Of what the volume is made from; scratch space has only its own."""
    if volume.persistent_volume_claim:
        return volume.persistent_volume_claim.claim_name
    if volume.config_map:
        return volume.config_map.name
    return volume.secret.secret_name if volume.secret else volume.name


def _folder(volume: Volume, given: Mapping[str, str], maps: Mapping[str, Mapping[str, str]], scratch: Path) -> Path | None:
    name = _name(volume)
    if name in given:
        folder = Path(given[name]).expanduser().resolve()
        if not folder.is_dir():
            raise StageFailure("VolumeMissing", f"--volume: {name}={given[name]} is no folder", ExitCode.DATA_MISSING)
        return folder
    if volume.config_map and name in maps:
        return _written(volume.config_map, maps[name], scratch / volume.name)
    if volume.empty_dir:
        (scratch / volume.name).mkdir(parents=True, exist_ok=True)
        return scratch / volume.name
    return None


def _written(wanted: ConfigMapSource, files: Mapping[str, str], folder: Path) -> Path:
    places = {item.key: item.path for item in wanted.items} if wanted.items else {key: key for key in files}
    folder.mkdir(parents=True, exist_ok=True)
    for key, place in places.items():
        path = (folder / place).resolve()
        if key not in files or not path.is_relative_to(folder.resolve()):
            message = f"spec.podTemplate.volumes: the ConfigMap {wanted.name} has no file {key} to be put at {place}"
            raise StageFailure("VolumeMissing", message, ExitCode.SPEC_INVALID)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(files[key]), encoding="utf-8")
    return folder


def _each(value: JsonValue, field: str, mounts: Mounts) -> JsonValue:
    if isinstance(value, dict):
        return {key: _each(item, f"{field}.{key}", mounts) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, f"{field}[{number}]", mounts) for number, item in enumerate(value)]
    return mounts.here(value, field) if isinstance(value, str) else value
