"""Reads the signature over a version's files: a sigstore bundle as OpenSSF model-signing writes it with a key of ours.

The bundle is a DSSE envelope (https://github.com/secure-systems-lab/dsse, v1.0.0) around an in-toto statement that lists the
SHA-256 of every file. Only the envelope is checked here, so that neither torch nor the signing library is needed; that the
files have these digests is for the audit to find, which downloads them.
"""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)

Key = ec.EllipticCurvePublicKey


class VerifyingKeyError(ValueError):
    """The file of verifying keys cannot be used."""


class SignatureError(ValueError):
    """The bundle is not a signature of ours; the message completes "its signature …"."""


def load_keys(pem: bytes) -> tuple[Key, ...]:
    """The keys of a PEM file with public keys or certificates: one, or several while a key is being replaced.

    A certificate is only a wrapping here: its names and dates are not looked at. Raises VerifyingKeyError for anything but P-256 keys.
    """
    keys = []
    for block in PEM_BLOCK.finditer(pem):
        certified = block[1] == b"CERTIFICATE"
        try:
            key = x509.load_pem_x509_certificate(block[0]).public_key() if certified else load_pem_public_key(block[0])
        except ValueError as error:
            raise VerifyingKeyError(f"a {block[1].decode()} cannot be read: {error}") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise VerifyingKeyError("a verifying key must be an elliptic-curve key on P-256")
        keys.append(key)
    if not keys:
        raise VerifyingKeyError("there is no public key or certificate in PEM form")
    return tuple(keys)


def signed_files(bundle: bytes, keys: Sequence[Key]) -> dict[str, str]:
    """Path → SHA-256 of every file that one of `keys` has signed. Raises SignatureError."""
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind = envelope["payloadType"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise SignatureError("is not a sigstore bundle with a DSSE envelope") from None
    if kind != PAYLOAD_TYPE:
        raise SignatureError(f"is over {str(kind)[:80]!r}, not over an in-toto statement")
    if not any(_verifies(key, signature, payload) for key in keys):
        raise SignatureError("was not made with this platform's key")
    return _resources(payload)


def _verifies(key: Key, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _pae(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _resources(payload: bytes) -> dict[str, str]:
    """The list of files. The key has vouched for it, and may have signed other things, too."""
    try:
        statement: dict[str, Any] = json.loads(payload)
        if statement["predicateType"] != PREDICATE_TYPE:
            raise SignatureError("is not over a model")
        resources = statement["predicate"]["resources"]
        return {str(item["name"]): str(item["digest"]) for item in resources if item["algorithm"] == "sha256"}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise error if isinstance(error, SignatureError) else SignatureError("lists no files") from None
