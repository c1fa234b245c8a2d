"""The container of a .pt2: a zip archive that is read by two parsers, Python's here and torch's at load time.

Everything on which the two could disagree is refused (a payload that only the second one sees would pass unseen), and
what could be larger unpacked than packed: torch.export.save stores its records uncompressed.
"""

import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from dropout_trainer.gate.verdict import RefusedError

MAX_RECORDS = 50_000
END_OF_DIRECTORY = b"PK\x05\x06"
REMEDY = "export with torch.export.save and upload the file as it is"


def record_names(path: Path) -> tuple[str, ...]:
    """Names of the archive's records without the root folder that they share.

    Raises RefusedError when the file is not a plain, uncompressed, unambiguous zip archive with one root folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            _check_container(path, archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise RefusedError(f"{path.name} is not a readable zip archive ({error})", REMEDY) from None
    if not 0 < len(infos) <= MAX_RECORDS:
        raise RefusedError(f"{path.name} holds {len(infos)} records; 1 to {MAX_RECORDS} are accepted", REMEDY)
    for info in infos:
        _check_record(info)
    return _without_root([info.filename for info in infos])


def _check_container(path: Path, archive: zipfile.ZipFile) -> None:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(-22, 2)
        end = file.read(4)
    if start != b"PK\x03\x04" or end != END_OF_DIRECTORY or archive.comment:
        raise RefusedError(f"{path.name} has bytes before or after the zip archive in it", REMEDY)


def _check_record(info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or len(name) > 512 or info.orig_filename != name:
        raise RefusedError(f"record {name[:80]!r} points outside the archive", REMEDY)
    if info.flag_bits & 0x1:
        raise RefusedError(f"record {name[:80]!r} is encrypted", REMEDY)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise RefusedError(f"record {name[:80]!r} is compressed ({info.compress_size} bytes become {info.file_size})", REMEDY)


def _without_root(names: list[str]) -> tuple[str, ...]:
    roots = {name.split("/", 1)[0] for name in names}
    if len(roots) != 1 or not all("/" in name for name in names):
        raise RefusedError("the records do not share one root folder", REMEDY)
    # torch looks names up without regard to case
    twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if twice:
        raise RefusedError(f"record {twice[0][:80]!r} is there twice", REMEDY)
    return tuple(name.split("/", 1)[1] for name in names)
