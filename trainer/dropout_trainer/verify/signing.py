"""Signs a model folder and checks the signature: OpenSSF model-signing with an elliptic-curve key, every file covered.

The keys are files: the private one is mounted into the verifier alone, the public one is for everybody. ECDSA signatures
differ each time, so they are verified and never compared.
"""

import contextlib
import io
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropout_api.binding import SIGNATURE
from dropout_api.names import Env, ExitCode
from dropout_api.verdict import CheckResult
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate.verdict import could_not_run, failed, not_applicable, passed
from dropout_trainer.verify.binding import TAMPERED, UNBOUND
from dropout_trainer.verify.fetch import MAX_BINDING_BYTES

CURVES = ("secp256r1", "secp384r1", "secp521r1")
BLOCK = re.compile(rb"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----.*?-----END \1-----", re.DOTALL)
MAKE_KEY = "make one with: openssl ecparam -name prime256v1 -genkey -noout -out signing.pem"


@dataclass(frozen=True)
class Keys:
    """What signatures are made and checked with; neither in local use."""

    private: Path | None = None
    public: tuple[bytes, ...] = ()
    """Public keys in PEM. One of them must fit, so that versions signed before a key was changed stay valid."""

    @property
    def pairs(self) -> bool:
        """Whether what is signed with the private key can be checked with a public one."""
        return self.private is None or _public_half(self.private) in self.public


UNSIGNED = Keys()


def of_environment() -> Keys:
    """The keys whose files the environment names. Without a public one, the private key's own half checks what it signed.

    Raises StageFailure SigningKeyInvalid when a file is no key, or the two do not belong together.
    """
    signing, verifying = os.environ.get(Env.SIGNING_KEY), os.environ.get(Env.VERIFYING_KEY)
    private = Path(signing) if signing else None
    half = (_public_half(private),) if private else ()
    keys = Keys(private, public_keys(Path(verifying)) if verifying else half)
    if not keys.pairs:
        raise _invalid(f"{Env.VERIFYING_KEY} ({verifying}) does not hold the public half of {Env.SIGNING_KEY} ({signing})",
                       f"write it with: openssl ec -in {signing} -pubout")
    return keys


def public_keys(path: Path) -> tuple[bytes, ...]:
    """Every public key of a PEM file, those of certificates among them, as normal PEM.

    Raises StageFailure SigningKeyInvalid when it holds none.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    def load(block: bytes) -> Any:
        return load_pem_x509_certificate(block).public_key() if b"CERTIFICATE" in block else load_pem_public_key(block)

    blocks = [match[0] for match in BLOCK.finditer(_content(path))]
    if not blocks:
        raise _invalid(f"{path} holds no public key in PEM", "write it with: openssl ec -in signing.pem -pubout")
    return tuple(_normal(_load(load, block, path), path) for block in blocks)


def sign(folder: Path, private: Path) -> None:
    """Writes the signature over every file of the folder into it, the statement included. Raises StageFailure as above."""
    from model_signing import signing

    _public_half(private)
    signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(_hashing()).sign(folder, folder / SIGNATURE)


def check(folder: Path, public: tuple[bytes, ...], complete: bool = True) -> CheckResult:
    """Check `signature`: one of the keys signed exactly the files of the folder. `complete` says that no file was left out of it."""
    path = folder / SIGNATURE
    present = path.is_file() and not path.is_symlink()
    if not public:
        what = "the signature was not checked: no key was given" if present else "the version is not signed"
        return not_applicable("signature", f"{what} (--key, or {Env.VERIFYING_KEY})")
    if not present:
        return failed("signature", f"there is no {SIGNATURE} among its files", TAMPERED)
    if path.stat().st_size > MAX_BINDING_BYTES:
        return failed("signature", f"{SIGNATURE} has {path.stat().st_size} bytes; {MAX_BINDING_BYTES} are accepted", TAMPERED)
    if not complete:
        return could_not_run("signature", "it covers files that were too large to look at")
    problems = [_problem(folder, key) for key in public]
    if None in problems:
        return passed("signature", "it covers exactly these files")
    return failed("signature", min(filter(None, problems), key=lambda problem: "another key" in problem), TAMPERED)


def _problem(folder: Path, public: bytes) -> str | None:
    """Why the signature does not hold under this key; None when it does."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    with tempfile.NamedTemporaryFile(suffix=".pem") as key, contextlib.redirect_stdout(io.StringIO()):  # the library prints warnings
        key.write(public)
        key.flush()
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=Path(key.name)).set_hashing_config(_hashing())
            config.verify(folder, folder / SIGNATURE)
        except InvalidSignature:
            return "it was made with another key, or changed"
        except Exception as error:  # a signature is anybody's file, and the library raises whatever its parts do
            text = " ".join(str(error).split()) or type(error).__name__
            return "it was made with another key" if "Key mismatch" in text else f"it does not hold: {text[:400]}"
    return None


def _hashing() -> Any:
    from model_signing import hashing

    return hashing.Config().use_file_serialization().set_ignored_paths(paths=UNBOUND, ignore_git_paths=False)


def _public_half(private: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def load(content: bytes) -> Any:
        return load_pem_private_key(content, None)

    return _normal(_load(load, _content(private), private, f"; {MAKE_KEY}").public_key(), private)


def _load(load: Any, content: bytes, path: Path, remedy: str = "") -> Any:
    try:
        return load(content)
    except Exception as error:  # the library's kinds: ValueError, TypeError for a passphrase, UnsupportedAlgorithm
        raise _invalid(f"{path} is not a usable key in PEM ({str(error)[:160]})", f"give one without a passphrase{remedy}") from None


def _normal(public: Any, path: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    curve = getattr(getattr(public, "curve", None), "name", None)
    if curve not in CURVES:
        raise _invalid(f"{path} is a key of {curve or type(public).__name__}, not of an elliptic curve of {', '.join(CURVES)}", MAKE_KEY)
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _invalid(f"{path} cannot be read: {error.strerror}", "mount the key's file, or unset its variable") from None


def _invalid(what: str, remedy: str) -> StageFailure:
    return StageFailure("SigningKeyInvalid", f"{what}; {remedy}", ExitCode.USAGE)
