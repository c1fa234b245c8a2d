"""What binds a verdict to the bytes it was given for.

A tag that says "passed" proves nothing: tags can be written by whoever may edit the version. So the verdict lies among
the version's files, names the SHA-256 of every other one, and is what the signature covers.
"""

from typing import Annotated, Literal

from pydantic import Field

from dropout_api.candidate import PlanRow
from dropout_api.model import Observed
from dropout_api.report import Sha256
from dropout_api.task import JobRef
from dropout_api.verdict import CheckResult, Verdict

STATEMENT = "gate/verdict.json"
"""Place of the statement in a model version's files."""
SIGNATURE = "model.sig"
"""Place of the signature over every file, the statement included: a sigstore bundle as OpenSSF model-signing writes it."""


class Statement(Observed):
    """A verdict, for whom, on which bytes, and under which versions."""

    schema_version: Literal[1] = 1
    verdict: Verdict
    gate_version: str
    model: str
    """Full name of the registered model."""
    job: JobRef
    run_id: str
    """The run that trained the model."""
    job_run_id: str
    """The job's own run: another one when it verified an earlier run's candidate again."""
    program_sha256: Sha256
    candidate: dict[str, Sha256]
    """The training pod's files as the gate read them, by name."""
    files: dict[str, Sha256]
    """Every file of the version by its path, but for this statement and the signature."""
    spec_sha256: Sha256
    """Of the job's spec as canonical JSON."""
    data_sha256: Sha256
    image: str
    """Image that trained the model, by digest where the runtime told."""
    seed: int
    plan: list[PlanRow]
    versions: dict[str, str]
    """Of the gate's python and libraries."""
    checks: Annotated[list[CheckResult], Field(max_length=128)]
