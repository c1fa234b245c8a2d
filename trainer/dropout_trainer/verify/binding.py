"""Binds a verdict to bytes: builds the statement that lies among a version's files, and holds files and tags against it.

Pure but for reading the folder. What a statement says is worth as much as the registry's access control; only the signature
over it (see signing.py) makes it worth more.
"""

import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError

from dropout_api._version import __version__
from dropout_api.binding import SIGNATURE, STATEMENT, Statement
from dropout_api.builtins import describe
from dropout_api.candidate import MANIFEST, MC, PROGRAM, CandidateConfig, formats_of
from dropout_api.names import Tag
from dropout_api.spec import JobSpec
from dropout_api.task import VerifyTask
from dropout_api.verdict import CheckResult, Verdict
from dropout_trainer.gate.candidate import read_manifest, sha256
from dropout_trainer.gate.verdict import GateReport, RefusedError, could_not_run, failed, not_applicable, passed
from dropout_trainer.verify.fetch import MAX_BINDING_BYTES

DOWNLOAD_NOTE = "registered_model_meta"
"""MLflow writes this file, with name and version, into whatever it downloads; it is no part of the version."""
NONE = "none"
"""For what a version lacks; no digest reads so."""
UNBOUND = (SIGNATURE, DOWNLOAD_NOTE)
"""Files that neither the statement nor the signature covers."""
AROUND = "register models through the gate: a DropoutTrainingJob does; remove the alias of this version until then"
TAMPERED = "do not serve this version; train or verify again to get a new one, and find out who may write its artifacts"


@dataclass(frozen=True)
class Claim:
    """What the registry says of a version; everyone who may edit it can write this."""

    model: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


def state(task: VerifyTask, report: GateReport, config: CandidateConfig, candidate: Path, model: Path) -> Statement:
    """The statement on the model folder `model`, which was built from the files in `candidate`."""
    manifest = {name: entry.sha256 for name, entry in read_manifest(candidate).files.items()}
    return Statement(
        verdict=report.verdict, gate_version=report.gate_version, model=task.model_name, job=task.job,
        run_id=task.trained.id, job_run_id=task.run.id,
        program_sha256=manifest[PROGRAM], candidate={**manifest, MANIFEST: sha256(candidate / MANIFEST)}, files=digests(model),
        spec_sha256=spec_digest(task.spec), data_sha256=config.data_sha256, image=task.image_id or "unknown", seed=config.seed,
        plan=config.plan, versions=versions(), checks=report.checks,
    )


def write(folder: Path, statement: Statement) -> None:
    """Puts the statement in its place among the files of the model folder."""
    path = folder / STATEMENT
    path.parent.mkdir(exist_ok=True)
    path.write_text(statement.model_dump_json(by_alias=True, exclude_none=True, indent=1), encoding="utf-8")


def read(folder: Path) -> Statement:
    """Raises RefusedError when there is none, it is too large or of another shape."""
    path = folder / STATEMENT
    if not path.is_file():
        raise RefusedError(f"there is no {STATEMENT} among its files: it was made around the gate", AROUND)
    if path.stat().st_size > MAX_BINDING_BYTES:
        raise RefusedError(f"{STATEMENT} has {path.stat().st_size} bytes; {MAX_BINDING_BYTES} are accepted", AROUND)
    try:
        return Statement.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RefusedError(describe(error, STATEMENT)[:600], AROUND) from None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a statement covers, by its path in the folder.

    Raises RefusedError for anything that is neither a file nor a folder: a link's target is not part of the version.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise RefusedError(f"{name[:160]!r} is neither a file nor a folder", "keep plain files in a model's folder")
        if path.is_file() and name not in (STATEMENT, *UNBOUND):
            found[name] = sha256(path)
    return found


def check(folder: Path, claim: Claim | None = None, absent: Collection[str] = ()) -> list[CheckResult]:
    """Holds a version's files and the registry's words against its statement: checks `statement`, `files` and `tags`.

    `claim` is None for a folder that came from no registry. `absent` are paths that the version has but the folder lacks, because
    they were too large to be downloaded.
    """
    try:
        statement = read(folder)
    except RefusedError as error:
        unsaid = "there is no statement to hold them against"
        forged = f"; its tag {Tag.STATEMENT_DIGEST} says otherwise" if claim and Tag.STATEMENT_DIGEST in claim.tags else ""
        return [failed("statement", error.evidence + forged, error.remedy), not_applicable("files", unsaid), not_applicable("tags", unsaid)]
    return [_statement(statement), _files(folder, statement, absent), _tags(folder, statement, claim)]


def _statement(statement: Statement) -> CheckResult:
    if statement.verdict is not Verdict.PASSED:
        return failed("statement", f"its own statement says {statement.verdict}", AROUND)
    if statement.program_sha256 not in statement.files.values():
        return failed("statement", "the program that the statement names is not among the files that it names", TAMPERED)
    return passed("statement", f"gate version {statement.gate_version} passed it for {statement.job.namespace}/{statement.job.name}")


def _files(folder: Path, statement: Statement, absent: Collection[str]) -> CheckResult:
    try:
        found = digests(folder)
    except RefusedError as error:
        return failed("files", error.evidence, error.remedy)
    problems = [
        *(f"{name!r} was changed" for name in sorted(statement.files) if name in found and found[name] != statement.files[name]),
        *(f"{name!r} is missing" for name in sorted(statement.files) if name not in found and name not in absent),
        *(f"{name!r} was added" for name in sorted({*found, *absent} - {STATEMENT, *UNBOUND}) if name not in statement.files),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return failed("files", f"{problems[0][:400]}{more}", TAMPERED)
    if absent:
        return could_not_run("files", f"{len(absent)} of {len(statement.files)} files were too large to look at: {min(absent)[:160]}")
    return passed("files", f"{len(found)} files have the digests of the statement, and there is no other")


def _tags(folder: Path, statement: Statement, claim: Claim | None) -> CheckResult:
    """The registry says of the version what its statement says; a statement copied to another model or version is found here."""
    if claim is None:
        return not_applicable("tags", "a folder carries no tags")
    given = {**claim.tags, "model": claim.model, "run": claim.run_id}
    required = {Tag.STATEMENT_DIGEST.value: sha256(folder / STATEMENT), "model": statement.model, "run": statement.run_id}
    for name, value in (required | tags(statement)).items():
        found = given.get(name, "missing")
        if found != value and (name in required or name in given):
            return failed("tags", f"{name} is {found[:120]!r}, but the statement is for {value[:120]!r}", TAMPERED)
    return passed("tags", f"model, run and {len(claim.tags)} tags agree with the statement")


def tags(statement: Statement) -> dict[str, str]:
    """The tags that repeat what the statement says."""
    job = statement.job
    known = {
        Tag.CLUSTER: job.cluster, Tag.NAMESPACE: job.namespace, Tag.NAME: job.name, Tag.UID: job.uid, Tag.RUN_ID: statement.job_run_id,
        Tag.DIGEST: statement.program_sha256, Tag.SEED: str(statement.seed), Tag.IMAGE: statement.image,
        Tag.VERDICT: statement.verdict.value, Tag.GATE_VERSION: statement.gate_version,
        Tag.MC_DIGEST: statement.candidate.get(MC, NONE), Tag.FORMAT: formats_of(statement.candidate),
    }
    return {tag.value: value for tag, value in known.items()}


def spec_digest(spec: JobSpec) -> str:
    """SHA-256 of the spec as canonical JSON: defaults filled in, keys sorted, no spaces."""
    text = json.dumps(spec.to_wire(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of what the gate runs with."""
    return {"python": platform.python_version(), "torch": torch.__version__, "dropout-operator": __version__} | {
        name: version(name) for name in ("mlflow", "numpy", "onnx", "onnxruntime", "safetensors")}
