"""A key that cannot sign, or whose signatures nobody could check, ends the verifier before it has judged or registered anything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from mlflow import MlflowClient

from dropout_api.names import Env, ExitCode
from dropout_api.report import StageError, parse
from dropout_api.task import VerifyTask
from dropout_trainer.errors import StageFailure
from dropout_trainer.verify import run, signing


def _pem(key: Any, encryption: Any = None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))


BAD = {
    "no key": (b"hello", "is not a usable key in PEM"),
    "empty": (b"", "is not a usable key in PEM"),
    "with a passphrase": (_pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"x")), "without a passphrase"),
    "of another kind": (_pem(ed25519.Ed25519PrivateKey.generate()), "not of an elliptic curve"),
    "of another curve": (_pem(ec.generate_private_key(ec.SECP256K1())), "is a key of secp256k1"),
}


@pytest.mark.parametrize("how", BAD)
def test_when_the_private_key_is(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, words = BAD[how]
    path = tmp_path / "signing.pem"
    path.write_bytes(content)
    monkeypatch.setenv(Env.SIGNING_KEY, str(path))

    with pytest.raises(StageFailure, match=words) as caught:
        signing.of_environment()

    assert (caught.value.reason, caught.value.exit_code) == ("SigningKeyInvalid", ExitCode.USAGE)
    assert str(path) in caught.value.message
    assert "openssl" in caught.value.message


def test_when_the_public_key_belongs_to_another(
    keys: Any, key_pair: Callable[[], Any], given: Callable[..., VerifyTask], sound: Path, client: MlflowClient, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = tmp_path / "message"
    for name, value in ((Env.SIGNING_KEY, keys.private), (Env.VERIFYING_KEY, key_pair().public), (Env.TERMINATION_LOG, message),
                        (Env.TASK, given(sound, "unpaired").to_json())):
        monkeypatch.setenv(name, str(value))

    assert run.main() == ExitCode.USAGE

    error = parse(StageError, message.read_text())
    assert error is not None
    assert error.reason == "SigningKeyInvalid"
    assert "does not hold the public half" in error.message
    assert not client.search_registered_models("name = 'team.unpaired'")


def test_when_its_file_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.SIGNING_KEY, "/nowhere/signing.pem")

    with pytest.raises(StageFailure, match=r"/nowhere/signing.pem cannot be read: No such file"):
        signing.of_environment()


def test_while_none_is_local_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (Env.SIGNING_KEY, Env.VERIFYING_KEY):
        monkeypatch.delenv(name, raising=False)

    assert signing.of_environment() == signing.UNSIGNED


def test_while_a_private_key_alone_checks_what_it_has_signed(keys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.SIGNING_KEY, str(keys.private))
    monkeypatch.delenv(Env.VERIFYING_KEY, raising=False)

    assert signing.of_environment() == signing.Keys(keys.private, signing.public_keys(keys.public))
