"""Whether a version came through the gate, as far as can be told without opening the model. Pure.

Two questions in turn: what the registry's own record says, which costs nothing to ask, and what the two small files say
that the record points at. Neither reads the model: a changed byte in it is found by `dropout audit`, which downloads it all.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from dropout_api.binding import SIGNATURE, STATEMENT, Statement
from dropout_api.names import Tag, verified_experiment
from dropout_api.verdict import Verdict
from dropout_operator.signatures import Key, SignatureError, signed_files

SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})")
REQUIRED = (Tag.VERDICT, Tag.DIGEST, Tag.STATEMENT_DIGEST)


@dataclass(frozen=True)
class Version:
    """A model version as the registry lists it."""

    model: str
    number: str
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    """Those that point at this version."""

    @property
    def uri(self) -> str:
        return f"models:/{self.model}/{self.number}"

    @property
    def copy(self) -> str | None:
        """Id of the logged model that holds the version's files, None where something else does."""
        found = SOURCE.fullmatch(self.source)
        return found[1] if found else None

    @property
    def tenant(self) -> str:
        """The namespace that the model's name belongs to."""
        return self.model.partition(".")[0]


@dataclass(frozen=True)
class Files:
    """What lies under a version's source. A file that is not there is None."""

    in_verified: bool
    """Whether it lies in the tenant's verified experiment, where only the verifier writes."""
    statement: bytes | None = None
    signature: bytes | None = None


def untold(version: Version) -> str | None:
    """What the registry's record lacks, None where it lacks nothing."""
    missing = [tag.value for tag in REQUIRED if not version.tags.get(tag)]
    if missing:
        return f"it was not made by the gate: it has no tag {missing[0]}"
    if version.tags[Tag.VERDICT] != Verdict.PASSED:
        return f"the gate's verdict on it is {version.tags[Tag.VERDICT][:40]!r}"
    if version.copy is None:
        return f"it was not made by the gate: its files lie in {version.source[:120]!r}"
    return None


def unproven(version: Version, files: Files, keys: Sequence[Key]) -> str | None:
    """What its files do not bear out of the record, None where they bear out all of it. Call it for what `untold` has passed.

    A signature by one of `keys` is asked for; none where there are no keys.
    """
    if not files.in_verified:
        return f"its files do not lie in the experiment {verified_experiment(version.tenant)}, where the verifier keeps its copies"
    if files.statement is None:
        return f"it has no {STATEMENT}"
    digest = hashlib.sha256(files.statement).hexdigest()
    if digest != version.tags[Tag.STATEMENT_DIGEST]:
        return f"its {STATEMENT} is not the one that it was registered with"
    return _misstated(version, files.statement) or _unsigned(files.signature, digest, keys)


def _misstated(version: Version, text: bytes) -> str | None:
    try:
        statement = Statement.model_validate_json(text)
    except ValidationError:
        return f"its {STATEMENT} is not a statement of the gate"
    if statement.verdict != Verdict.PASSED:
        return f"its {STATEMENT} says {statement.verdict}"
    if statement.model != version.model or statement.job.namespace != version.tenant:
        return f"its {STATEMENT} is about the model {statement.model[:120]!r} of namespace {statement.job.namespace[:63]!r}"
    if statement.program_sha256 != version.tags[Tag.DIGEST]:
        return f"its {STATEMENT} is about another program: {statement.program_sha256[:12]}…, tagged {version.tags[Tag.DIGEST][:12]}…"
    return None


def _unsigned(signature: bytes | None, digest: str, keys: Sequence[Key]) -> str | None:
    if not keys:
        return None
    if signature is None:
        return f"it is not signed: it has no {SIGNATURE}"
    try:
        signed = signed_files(signature, keys)
    except SignatureError as error:
        return f"its signature {error}"
    return None if signed.get(STATEMENT) == digest else f"its signature does not cover its {STATEMENT}"
