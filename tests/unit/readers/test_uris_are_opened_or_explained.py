"""A URI is read through fsspec; one that cannot be is one line that names the field and what to do."""

import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from dropout_api.names import ExitCode
from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.readers.uri import Folder, read_bytes

ROWS = "a,y\n" + "1,0\n2,1\n" * 20


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_path(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    assert read_bytes(f"{prefix}{tmp_path}/rows.csv") == ROWS.encode()


def test_another_scheme(read: Callable[..., Data]) -> None:
    fsspec.filesystem("memory").pipe_file("/uri/rows.csv", ROWS.encode())
    assert read("csv", uri="memory://uri/rows.csv", target="y").class_names == ("0", "1")


def test_a_compressed_file_is_unpacked_on_request_alone(tmp_path: Path) -> None:
    with fsspec.open(str(tmp_path / "rows.csv.gz"), "wb", compression="gzip") as file:
        file.write(ROWS.encode())
    assert read_bytes(str(tmp_path / "rows.csv.gz"), unpack=True) == ROWS.encode()
    assert read_bytes(str(tmp_path / "rows.csv.gz")).startswith(b"\x1f\x8b")


def failure(uri: str, **options: bool) -> StageFailure:
    with pytest.raises(StageFailure) as end:
        read_bytes(uri, **options)
    assert "\n" not in end.value.message
    assert end.value.message.startswith("spec.data.args.uri: ")
    return end.value


def test_what_is_not_there() -> None:
    end = failure("/nowhere/rows.csv")
    assert "there is no /nowhere/rows.csv; put it into spec.image, or mount the volume" in end.message
    assert end.exit_code == ExitCode.DATA_MISSING
    assert "there is no memory://nowhere; see that the address is right" in failure("memory://nowhere").message


def test_a_scheme_that_nobody_knows() -> None:
    end = failure("s4://bucket/rows.csv")
    assert "s4://bucket/rows.csv: there is no scheme 's4'; use a path, or file://" in end.message
    assert end.exit_code == ExitCode.SPEC_INVALID


def test_a_scheme_whose_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    end = failure("s3://bucket/rows.csv")
    assert "s3://bucket/rows.csv needs a package that spec.image lacks (Install s3fs to access S3); derive an image" in end.message
    assert end.exit_code == ExitCode.DATA_MISSING


def test_a_folder_where_a_file_is_needed_and_a_file_where_a_folder_is(tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder, but a file is needed" in failure(str(tmp_path)).message
    (tmp_path / "file").write_text("")
    with pytest.raises(StageFailure, match=r"there is no folder .*/file"):
        Folder(str(tmp_path / "file"))


def test_a_file_that_is_not_packed_as_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.gz").write_text(ROWS)
    assert "rows.csv.gz cannot be read: BadGzipFile" in failure(str(tmp_path / "rows.csv.gz"), unpack=True).message


def test_a_folders_files_come_in_the_paths_order(tmp_path: Path) -> None:
    for name in ("b/2", "a", "b/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    folder = Folder(f"{tmp_path}/")
    assert folder.paths == ["a", "b/1", "b/2"]
    assert folder.read("b/1") == b"b/1"
