"""Keys, and signatures as the verifier makes them: with OpenSSF model-signing itself."""

import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dropout_api.binding import SIGNATURE, STATEMENT


@dataclass(frozen=True)
class SigningKey:
    """A key on P-256."""

    private: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls) -> "SigningKey":
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @property
    def private_pem(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())

    @property
    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def certificate(self) -> bytes:
        """The public key as the chart has it: in a certificate that the key itself signed."""
        name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dropout-operator")]), datetime.now(UTC)
        made = x509.CertificateBuilder(name, name, self.private.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        return made.sign(self.private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(self, folder: Path) -> bytes:
        """Signs every file of a folder, and leaves the signature in it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from model_signing import signing
        key = folder.with_name(f"{folder.name}.key")
        key.write_bytes(self.private_pem)
        signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, folder / SIGNATURE)
        return (folder / SIGNATURE).read_bytes()


def statement(model: str = "team.digits", program: str = "0" * 64, **changes: object) -> bytes:
    """A statement that the gate could have made."""
    namespace, _, name = model.partition(".")
    fields = {
        "schemaVersion": 1, "verdict": "Passed", "gateVersion": "1", "model": model,
        "job": {"cluster": "c", "namespace": namespace, "name": name, "uid": "u"}, "runId": "a" * 32, "jobRunId": "a" * 32,
        "programSha256": program,
        "candidate": {}, "files": {}, "specSha256": "1" * 64, "dataSha256": "2" * 64, "image": "trainer:1", "seed": 42, "plan": [],
        "versions": {}, "checks": [],
    }
    return json.dumps(fields | changes).encode()


def folder_with(folder: Path, text: bytes) -> Path:
    """A model's folder with this statement."""
    (folder / STATEMENT).parent.mkdir(parents=True)
    (folder / STATEMENT).write_bytes(text)
    (folder / "MLmodel").write_text("flavors: {}\n")
    return folder
