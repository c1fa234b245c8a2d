"""Whatever is done to a registered version's files or tags after the gate has passed it, `dropout verify` says so."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from dropout_api.binding import SIGNATURE, STATEMENT, Statement
from dropout_api.names import Env, ExitCode, Tag
from dropout_api.verdict import Verdict
from dropout_trainer.verify import binding, signing, target

Registered = Callable[..., str]
FilesOf = Callable[[str], Path]


@pytest.fixture
def version(registered: Registered, files_of: FilesOf, client: MlflowClient) -> Iterator[str]:
    """One signed version; what a test does to its files is undone."""
    found = client.search_model_versions("name = 'team.changing'")
    uri = f"models:/team.changing/{found[0].version}" if found else registered("changing")
    folder = files_of(uri)
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    yield uri
    shutil.rmtree(folder)
    kept.rename(folder)


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str], keys: Any) -> Callable[..., tuple[int, dict[str, dict[str, str]]]]:
    """Exit code and checks by name, of `dropout verify TARGET --json`."""
    def run(uri: str, key: Path | None = keys.public) -> tuple[int, dict[str, dict[str, str]]]:
        capsys.readouterr()
        code = target.main(uri, str(key) if key else None, as_json=True)
        return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}

    return run


Verified = Callable[..., tuple[int, dict[str, dict[str, str]]]]


def outcomes(checks: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: check["outcome"] for name, check in checks.items()}


def test_unless_nothing_was(version: str, verified: Verified, files_of: FilesOf) -> None:
    code, checks = verified(version)

    assert (code, outcomes(checks)) == (ExitCode.OK, dict.fromkeys(("statement", "files", "tags", "signature"), "Passed"))
    statement = binding.read(files_of(version))
    assert (statement.seed, statement.model, statement.image) == (42, "team.changing", "trainer@sha256:1")
    assert set(statement.candidate) == {"eval.pt2", "heldout.safetensors", "weights.safetensors", "config.json", "manifest.json"}
    assert set(statement.versions) >= {"python", "torch", "mlflow", "numpy", "dropout-operator"}
    assert {path.relative_to(files_of(version)).as_posix() for path in files_of(version).rglob("*") if path.is_file()} == {
        *statement.files, STATEMENT, SIGNATURE}


def test_and_without_a_key_it_says_that_the_signature_was_not_checked(version: str, verified: Verified) -> None:
    code, checks = verified(version, key=None)

    assert (code, checks["signature"]["outcome"]) == (ExitCode.OK, "NotApplicable")
    assert "the signature was not checked: no key was given" in checks["signature"]["evidence"]


@pytest.mark.parametrize("key", [True, False], ids=["with a key", "without a key"])
@pytest.mark.parametrize("name", ["MLmodel", "artifacts/eval.pt2", "serving.py", "requirements.txt", "conda.yaml"])
def test_when_a_byte_of_a_file_is_another(name: str, key: bool, version: str, verified: Verified, files_of: FilesOf, keys: Any) -> None:
    path = files_of(version) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    code, checks = verified(version, keys.public if key else None)

    assert code == ExitCode.REJECTED
    assert checks["files"]["evidence"] == f"{name!r} was changed"
    assert checks["signature"]["outcome"] == ("Failed" if key else "NotApplicable")


@pytest.mark.parametrize("name", ["data/payload.pkl", "code/sitecustomize.py", ".gitattributes", "gate/extra.json"])
def test_when_a_file_was_added(name: str, version: str, verified: Verified, files_of: FilesOf) -> None:
    path = files_of(version) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")

    code, checks = verified(version)

    assert (code, checks["files"]["evidence"]) == (ExitCode.REJECTED, f"{name!r} was added")
    assert checks["signature"]["outcome"] == "Failed"


def test_when_a_file_was_removed(version: str, verified: Verified, files_of: FilesOf) -> None:
    (files_of(version) / "serving.py").unlink()

    code, checks = verified(version)

    assert (code, checks["files"]["evidence"]) == (ExitCode.REJECTED, "'serving.py' is missing")
    assert checks["signature"]["outcome"] == "Failed"


def forge(folder: Path, **changes: Any) -> Statement:
    """Puts a statement there that fits the files as they are now."""
    statement = binding.read(folder).model_copy(update={"files": binding.digests(folder), **changes})
    binding.write(folder, statement)
    return statement


def test_when_program_and_statement_were_replaced_together(version: str, verified: Verified, files_of: FilesOf) -> None:
    (files_of(version) / "artifacts/eval.pt2").write_bytes(b"another program")
    forge(files_of(version), program_sha256=binding.digests(files_of(version))["artifacts/eval.pt2"])

    code, checks = verified(version, key=None)
    signed = verified(version)[1]

    assert (code, checks["files"]["outcome"], checks["tags"]["outcome"]) == (ExitCode.REJECTED, "Passed", "Failed")
    assert Tag.STATEMENT_DIGEST in checks["tags"]["evidence"]
    assert signed["signature"]["outcome"] == "Failed"


def test_by_the_signature_alone_when_statement_and_tags_were_replaced_too(
    registered: Registered, verified: Verified, files_of: FilesOf, client: MlflowClient,
) -> None:
    uri = registered("forged")
    (files_of(uri) / "serving.py").write_text("import os")
    forge(files_of(uri))
    digest = binding.sha256(files_of(uri) / STATEMENT)
    client.set_model_version_tag("team.forged", "1", Tag.STATEMENT_DIGEST.value, digest)

    code, checks = verified(uri)

    assert verified(uri, key=None)[0] == ExitCode.OK
    assert (code, [name for name, check in checks.items() if check["outcome"] != "Passed"]) == (ExitCode.REJECTED, ["signature"])


def test_when_it_was_signed_with_another_key(version: str, verified: Verified, files_of: FilesOf, key_pair: Callable[[], Any]) -> None:
    stranger = key_pair()
    signing.sign(files_of(version), stranger.private)

    code, checks = verified(version)

    assert (code, checks["signature"]["evidence"]) == (ExitCode.REJECTED, "it was made with another key")
    assert verified(version, stranger.public)[0] == ExitCode.OK


def test_but_a_file_of_two_keys_accepts_what_either_has_signed(
    version: str, verified: Verified, files_of: FilesOf, key_pair: Callable[[], Any], keys: Any, tmp_path: Path,
) -> None:
    both, stranger = tmp_path / "both.pem", key_pair()
    both.write_bytes(stranger.public.read_bytes() + keys.public.read_bytes())

    assert verified(version, both)[0] == ExitCode.OK
    signing.sign(files_of(version), stranger.private)
    assert verified(version, both)[0] == ExitCode.OK


def test_when_the_signature_was_removed(version: str, verified: Verified, files_of: FilesOf) -> None:
    (files_of(version) / SIGNATURE).unlink()

    code, checks = verified(version)

    assert (code, checks["signature"]["evidence"]) == (ExitCode.REJECTED, f"there is no {SIGNATURE} among its files")


@pytest.mark.parametrize("content", [b"", b"{}", b"[[", b'{"verificationMaterial": 1}', b"\xff" * 9, b"[" * 100_000])
def test_when_the_signature_is_none(content: bytes, version: str, verified: Verified, files_of: FilesOf) -> None:
    (files_of(version) / SIGNATURE).write_bytes(content)

    code, checks = verified(version)

    assert (code, checks["signature"]["outcome"]) == (ExitCode.REJECTED, "Failed")


@pytest.mark.parametrize(("content", "words"), [
    ("{}", "field required"), ("[", "json"), ('{"schemaVersion": 1, "verdict": "Passed"}', "field required")])
def test_when_the_statement_is_none(content: str, words: str, version: str, verified: Verified, files_of: FilesOf) -> None:
    (files_of(version) / STATEMENT).write_text(content)

    code, checks = verified(version)

    assert (code, checks["statement"]["outcome"]) == (ExitCode.REJECTED, "Failed")
    assert words in checks["statement"]["evidence"].lower()


def test_when_the_statement_says_that_the_gate_refused_it(version: str, verified: Verified, files_of: FilesOf) -> None:
    forge(files_of(version), verdict=Verdict.FAILED)

    assert verified(version)[1]["statement"]["evidence"] == "its own statement says Failed"


def test_when_its_files_were_registered_under_another_name(version: str, verified: Verified, client: MlflowClient) -> None:
    found = client.get_model_version("team.changing", version.rsplit("/", 1)[-1])
    client.create_registered_model("other.changing")
    copy = client.create_model_version("other.changing", found.source, run_id=found.run_id, tags=found.tags)

    code, checks = verified(f"models:/other.changing/{copy.version}")

    assert (code, checks["signature"]["outcome"], checks["tags"]["outcome"]) == (ExitCode.REJECTED, "Passed", "Failed")
    assert "model is 'other.changing', but the statement is for 'team.changing'" in checks["tags"]["evidence"]


def test_when_a_tag_says_something_else(registered: Registered, verified: Verified, client: MlflowClient) -> None:
    uri = registered("tag", signed=False)
    client.set_model_version_tag("team.tag", "1", Tag.SEED.value, "7")

    code, checks = verified(uri, key=None)

    assert (code, checks["tags"]["evidence"]) == (ExitCode.REJECTED, "dropout.seed is '7', but the statement is for '42'")


def test_and_a_version_without_a_signature_passes_only_without_a_key(registered: Registered, verified: Verified, files_of: FilesOf) -> None:
    uri = registered("unsigned", signed=False)

    code, checks = verified(uri, key=None)

    assert not (files_of(uri) / SIGNATURE).exists()
    assert code == ExitCode.OK
    assert "the version is not signed" in checks["signature"]["evidence"]
    assert verified(uri)[0] == ExitCode.REJECTED


def test_by_alias_and_in_a_downloaded_folder(registered: Registered, verified: Verified, tmp_path: Path, keys: Any) -> None:
    uri = registered("downloaded", export={"alias": "champion"})
    folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "model"))
    assert (Path(folder) / binding.DOWNLOAD_NOTE).exists()

    assert verified("models:/team.downloaded@champion")[0] == ExitCode.OK
    code, checks = verified(folder)
    assert (code, checks["tags"]["outcome"], checks["signature"]["outcome"]) == (ExitCode.OK, "NotApplicable", "Passed")

    (Path(folder) / "link").symlink_to("/etc/hostname")
    code, checks = verified(folder)
    assert (code, checks["files"]["evidence"]) == (ExitCode.REJECTED, "'link' is neither a file nor a folder")


@pytest.mark.parametrize("name", [
    "models:/team.changing/99", "models:/team.none/1", "models:/team.changing@none", "models:/team.changing/Production", "models:/m-0123",
    "runs:/1/model", "/nowhere",
])
def test_and_a_target_that_is_none_is_a_wrong_argument(name: str, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert target.main(name, None, as_json=False) == ExitCode.USAGE

    words = capsys.readouterr()
    assert (words.out, words.err.count("\n")) == ("", 1)
    assert words.err.startswith(f"TargetInvalid: {name} ")


def test_and_no_server_is_a_wrong_argument_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Env.TRACKING_URI, raising=False)

    assert target.main("models:/team.x/1", None, as_json=False) == ExitCode.USAGE
    assert "MLFLOW_TRACKING_URI is not set" in capsys.readouterr().err


def test_and_a_name_that_mlflow_cannot_give_is_no_way_around(version: str, verified: Verified, files_of: FilesOf) -> None:
    (files_of(version) / "\x1b[31mx").write_text("x")

    code, checks = verified(version)

    assert (code, outcomes(checks)) == (ExitCode.REJECTED, {"files": "Failed"})
    assert "MLflow lists a file '\\x1b[31mx' and does not give it" in checks["files"]["evidence"]


def test_and_the_table_says_it_in_words_and_without_control_characters(
    version: str, capsys: pytest.CaptureFixture[str], files_of: FilesOf, keys: Any,
) -> None:
    (files_of(version) / "\x1b[31m[red]x").write_text("x")

    assert target.main(str(files_of(version)), str(keys.public), as_json=False) == ExitCode.REJECTED

    table = capsys.readouterr().out
    assert "failed" in table.splitlines()[0]
    assert "[red]x" in table
    assert "\x1b" not in table
    assert "Remedy: do not serve this version" in table
