"""The decision about one version: whatever is forged, missing or taken from elsewhere is named."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dropout_testing.signing import SigningKey, folder_with, statement
from hypothesis import given
from hypothesis import strategies as st

from dropout_operator.guard import Files, Version, unproven, untold
from dropout_operator.signatures import Key, VerifyingKeyError, load_keys

PROGRAM = "0" * 64
COPY = "m-" + "b" * 32


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.new()


@pytest.fixture(scope="module")
def keys(key: SigningKey) -> tuple[Key, ...]:
    return load_keys(key.certificate)


@pytest.fixture(scope="module")
def signature(key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Over a folder with `statement()`."""
    return key.sign(folder_with(tmp_path_factory.mktemp("signed") / "model", statement()))


def version(text: bytes = b"", **tags: str) -> Version:
    wanted = {"verdict": "Passed", "sha256": PROGRAM, "statement_sha256": hashlib.sha256(text or statement()).hexdigest()} | tags
    return Version("team.digits", "1", f"models:/{COPY}", {f"dropout.{name}": value for name, value in wanted.items()})


def test_what_the_verifier_registers_is_gated(keys: tuple[Key, ...], signature: bytes) -> None:
    assert untold(version()) is None
    assert unproven(version(), Files(True, statement(), signature), keys) is None


def test_without_a_key_of_the_platform_no_signature_is_asked_for() -> None:
    assert unproven(version(), Files(True, statement()), ()) is None


@pytest.mark.parametrize("tag", ["dropout.verdict", "dropout.sha256", "dropout.statement_sha256"])
def test_a_missing_tag_is_named(tag: str) -> None:
    bare = replace(version(), tags={name: value for name, value in version().tags.items() if name != tag})
    assert f"it has no tag {tag}" in str(untold(bare))


@pytest.mark.parametrize("verdict", ["Failed", "CouldNotRun", "passed"])
def test_another_verdict_is_no_pass(verdict: str) -> None:
    assert verdict in str(untold(version(verdict=verdict)))


@pytest.mark.parametrize("source", [
    "s3://bucket/model", "runs:/abc/model", f"models:/{COPY}/..", "models:/team.digits/1", "", f"models:/{COPY}\n",
])
def test_files_that_lie_anywhere_but_in_a_logged_model(source: str) -> None:
    assert "its files lie in" in str(untold(replace(version(), source=source)))


def test_a_copy_that_the_verifier_did_not_make() -> None:
    assert "team:verified" in str(unproven(version(), Files(False, statement()), ()))


def test_a_version_without_a_statement() -> None:
    assert "no gate/verdict.json" in str(unproven(version(), Files(True), ()))


@pytest.mark.parametrize(("text", "words"), [
    (b"not json", "is not a statement"), (b"{}", "is not a statement"), (b"[" * 100_000, "is not a statement"),
    (statement(verdict="Failed"), "says Failed"), (statement(verdict="CouldNotRun"), "says CouldNotRun"),
    (statement(model="team.other"), "about the model 'team.other'"),
    (statement(job={"cluster": "c", "namespace": "other", "name": "n", "uid": "u"}), "of namespace 'other'"),
    (statement(program="f" * 64), "about another program: ffffffffffff…"),
])
def test_a_statement_that_does_not_say_it(text: bytes, words: str) -> None:
    """Each has the digest that its version's tag names: tags are written by whoever may write the version."""
    assert words in str(unproven(version(text), Files(True, text), ()))


def test_a_statement_that_was_exchanged_after_registration() -> None:
    assert "not the one that it was registered with" in str(unproven(version(), Files(True, statement(seed=43)), ()))


def test_a_version_without_a_signature(keys: tuple[Key, ...]) -> None:
    assert "it is not signed" in str(unproven(version(), Files(True, statement()), keys))


def test_a_signature_by_another_key(signature: bytes) -> None:
    others = load_keys(SigningKey.new().public_pem)
    assert "not made with this platform's key" in str(unproven(version(), Files(True, statement(), signature), others))


def test_a_signature_over_other_files(key: SigningKey, keys: tuple[Key, ...], tmp_path: Path) -> None:
    """Made by the platform, for another version: a true signature and a true statement that do not belong together."""
    elsewhere = key.sign(folder_with(tmp_path / "model", statement(seed=1)))
    assert "does not cover" in str(unproven(version(), Files(True, statement(), elsewhere), keys))


def changed(signature: bytes, **envelope: Any) -> bytes:
    bundle = json.loads(signature)
    bundle["dsseEnvelope"] |= envelope
    return json.dumps(bundle).encode()


def test_a_list_of_files_that_was_changed_after_it_was_signed(keys: tuple[Key, ...], signature: bytes) -> None:
    payload = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"].append({"name": "more.bin", "algorithm": "sha256", "digest": "0" * 64})
    forged = changed(signature, payload=base64.b64encode(json.dumps(payload).encode()).decode())
    assert "not made with this platform's key" in str(unproven(version(), Files(True, statement(), forged), keys))


def test_a_signature_over_something_that_is_no_model(keys: tuple[Key, ...], signature: bytes) -> None:
    forged = changed(signature, payloadType="text/plain")
    assert "'text/plain'" in str(unproven(version(), Files(True, statement(), forged), keys))


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b"[]", b'{"dsseEnvelope": {"payload": 1}}', b"[" * 100_000]))
def test_no_bytes_are_taken_for_a_signature(text: bytes) -> None:
    keys = load_keys(SigningKey.new().public_pem)
    assert "is not a sigstore bundle" in str(unproven(version(), Files(True, statement(), text), keys))


def test_while_a_key_is_replaced_the_old_and_the_new_one_count(key: SigningKey, signature: bytes) -> None:
    both = load_keys(SigningKey.new().public_pem + key.certificate)
    assert len(both) == 2
    assert unproven(version(), Files(True, statement(), signature), both) is None


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_without_a_key_is_an_error(pem: bytes) -> None:
    with pytest.raises(VerifyingKeyError):
        load_keys(pem)
