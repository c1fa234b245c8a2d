"""The container of a .pt2: a zip archive that is read by two parsers, Python's here and torch's at load time.

Everything on which the two could disagree is refused (a payload that only the second one sees would pass unseen), and
what could be larger unpacked than packed: torch.export.save stores its records uncompressed. What is left is one sequence
of records, then the directory that names each of them once, then its end, without a byte between or around them.
"""

import re
import stat
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dropout_trainer.gate.verdict import RefusedError

MAX_RECORDS = 50_000
MAX_NAME = 512
MAX_DIRECTORY_BYTES = 16 << 20
LOCAL, DESCRIPTOR = struct.Struct("<4s5H3I2H"), b"PK\x07\x08"
END, END_64, LOCATOR = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
ENCRYPTED, IN_DESCRIPTOR, UTF_8 = 0x1, 0x8, 0x800
REMEDY = "export with torch.export.save and upload the file as it is"


@dataclass(frozen=True)
class Directory:
    """Where the end of the archive says that its directory is."""

    records: int
    size: int
    offset: int


def record_names(path: Path) -> tuple[str, ...]:
    """Names of the archive's records without the root folder that they share.

    Raises RefusedError when the file is not a plain, uncompressed, unambiguous zip archive with one root folder.
    """
    if not path.is_file():  # a pipe would be waited for
        raise RefusedError(f"{path.name} is no plain file", REMEDY)
    with path.open("rb") as file:
        return check_archive(file, path.name)


def check_archive(file: IO[bytes], title: str) -> tuple[str, ...]:
    """As `record_names`, for an open file that messages call `title`."""
    try:
        directory = _directory(file)
        _check_size(directory, title)
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        if len(infos) != directory.records:
            raise ValueError("its end tells another number of records than its directory")
        for info in infos:
            _check_record(info)
        _check_layout(file, sorted(infos, key=lambda info: info.header_offset), directory)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise RefusedError(f"{title} is not a readable zip archive ({error})", REMEDY) from None
    return _without_root([info.filename for info in infos])


def _directory(file: IO[bytes]) -> Directory:
    """As the last bytes say: the end of the directory, and before it the 64-bit end and its locator, where there are any."""
    size = file.seek(0, 2)
    signature, disk, first_disk, here, records, length, offset, comment = _unpack(file, END, size - END.size)
    if signature != b"PK\x05\x06" or comment:
        raise ValueError("it does not end with the end of its directory")
    end = size - END.size
    if end >= LOCATOR.size and _unpack(file, LOCATOR, end - LOCATOR.size)[0] == b"PK\x06\x07":
        end -= LOCATOR.size + END_64.size
        _, _, position, disks = _unpack(file, LOCATOR, end + END_64.size)
        large = _unpack(file, END_64, end)
        told = (here, records, length, offset)
        if large[0] != b"PK\x06\x06" or large[1] != END_64.size - 12 or position != end or disks != 1 or large[4:6] != (0, 0):
            raise ValueError("the 64-bit end of its directory is not where it must be")
        here, records, length, offset = large[6:]
        # each number is told twice, the second time with all bits set where it does not fit
        full = (0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1)
        if any(short not in (long, most) for short, long, most in zip(told, large[6:], full, strict=True)):
            raise ValueError("its two ends tell different numbers")
    if (disk, first_disk) != (0, 0) or here != records or offset + length != end:
        raise ValueError("there are bytes between its directory and its end")
    return Directory(records, length, offset)


def _check_size(directory: Directory, title: str) -> None:
    if not 0 < directory.records <= MAX_RECORDS or directory.size > MAX_DIRECTORY_BYTES:
        raise RefusedError(f"{title} holds {directory.records} records; 1 to {MAX_RECORDS} are accepted", REMEDY)


def _unpack(file: IO[bytes], layout: struct.Struct, offset: int) -> tuple[Any, ...]:
    if offset < 0:
        raise ValueError("it is too short")
    file.seek(offset)
    return layout.unpack(file.read(layout.size))


def _check_record(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if not re.fullmatch(r"[ -~]+", info.orig_filename) or len(name) > MAX_NAME:
        raise RefusedError(f"record {name[:80]!r} has a name that is not plain text", REMEDY)
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name or info.orig_filename != name:
        raise RefusedError(f"record {name[:80]!r} points outside the archive", REMEDY)
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise RefusedError(f"record {name[:80]!r} is a link or no plain file", REMEDY)
    if info.flag_bits & ENCRYPTED:
        raise RefusedError(f"record {name[:80]!r} is encrypted", REMEDY)
    if info.flag_bits & ~(IN_DESCRIPTOR | UTF_8):
        raise RefusedError(f"record {name[:80]!r} is written in a way that torch does not use", REMEDY)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise RefusedError(f"record {name[:80]!r} is compressed ({info.compress_size} bytes become {info.file_size})", REMEDY)


def _check_layout(file: IO[bytes], infos: list[zipfile.ZipInfo], directory: Directory) -> None:
    """Records follow each other from the first byte to the directory, so that none overlaps another or hides between them."""
    position = 0
    for info in infos:
        if info.header_offset != position:
            raise ValueError(f"there are bytes before record {info.filename[:80]!r}, or it overlaps another one")
        position = _end_of(file, info)
    if position != directory.offset:
        raise ValueError("there are bytes between its last record and its directory, or records reach into that")


def _end_of(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the record ends, whose own header must say what the directory says."""
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _unpack(file, LOCAL, info.header_offset)
    name = file.read(name_length)
    deferred = bool(flags & IN_DESCRIPTOR)
    wide = info.file_size >= 2**32 - 1
    # torch writes long descriptors after records that begin beyond 4 GiB, too
    descriptor = struct.Struct("<4sI2Q" if wide or info.header_offset >= 2**32 - 1 else "<4s3I")
    facts = (info.CRC, *(2 * (2**32 - 1 if wide else info.file_size,)))
    if (signature, flags, method, name) != (b"PK\x03\x04", info.flag_bits, info.compress_type, info.orig_filename.encode()):
        raise ValueError(f"record {info.filename[:80]!r} and its directory disagree")
    if (crc, packed, size) != facts and not (deferred and (crc, packed, size) == (0, 0, 0)):
        raise ValueError(f"record {info.filename[:80]!r} and its directory disagree about its size")
    end: int = info.header_offset + LOCAL.size + name_length + extra_length + info.file_size
    if not deferred:
        return end
    if _unpack(file, descriptor, end) != (DESCRIPTOR, info.CRC, info.file_size, info.file_size):
        raise ValueError(f"record {info.filename[:80]!r} and its descriptor disagree")
    return end + descriptor.size


def _without_root(names: list[str]) -> tuple[str, ...]:
    roots = {name.split("/", 1)[0] for name in names}
    if len(roots) != 1 or not all("/" in name for name in names):
        raise RefusedError("the records do not share one root folder", REMEDY)
    # torch looks names up without regard to case
    twice = [name for name, count in Counter(name.lower() for name in names).items() if count > 1]
    if twice:
        raise RefusedError(f"record {twice[0][:80]!r} is there twice", REMEDY)
    return tuple(name.split("/", 1)[1] for name in names)
