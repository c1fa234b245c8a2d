"""Where checkpoints lie: a folder of this machine, or one that fsspec writes. A file appears whole or not at all."""

import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure
from dropout_trainer.train.checkpoints.packing import Piece

UNFINISHED = ".tmp"
TRIES, PAUSE = 4, 0.5
"""Of a read that a remote store does not answer, and seconds before the second; the wait doubles."""
R = TypeVar("R")


class Refused(Exception):  # noqa: N818 - what a checkpoint is, not what went wrong
    """A checkpoint must not be used; the text says why."""


class Folder(Protocol):
    """Names are those of files, without folders."""

    def names(self) -> set[str]: ...

    def size(self, name: str) -> int:
        """In bytes. Raises Refused when there is no such file."""

    def read(self, name: str) -> bytes:
        """Raises Refused when there is no such file, or it cannot be read."""

    def write(self, name: str, content: Iterable[Piece]) -> None:
        """The pieces one after another. Once it returns, the file stays. Raises what the store raises."""

    def remove(self, name: str) -> None: ...


def folder_at(uri: str) -> Folder:
    """The folder at a path or a URI of fsspec's, made where there is none.

    Raises StageFailure when it cannot be written: better told before a training than after.
    """
    try:
        folder = opened(uri)
        folder.write("probe.tmp", [])
        folder.remove("probe.tmp")
    except Exception as error:  # each scheme's package has exceptions of its own
        message = f"spec.checkpoint: {uri} cannot be written: {type(error).__name__}: {str(error)[:300]}; {_remedy(error)}"
        raise StageFailure("CheckpointsUnavailable", message, ExitCode.CHECKPOINTS_UNAVAILABLE) from None
    return folder


def opened(uri: str) -> Folder:
    """As `folder_at`, but nothing is tried: for a process that only reads beside one that writes."""
    path = local_folder(uri)
    return RemoteFolder(uri) if path is None else LocalFolder(path)


def local_folder(uri: str) -> Path | None:
    """None for a URI that fsspec must open."""
    path = uri.removeprefix("file://")
    return None if "://" in path else Path(path)


def _remedy(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "derive an image for spec.image from the platform's trainer image that has this package"
    return "let the pod's user or credentials write there (spec.podTemplate.env, serviceAccountName, securityContext)"


class LocalFolder:
    """Of a mounted volume, or of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        return {entry.name for entry in os.scandir(self._path)}

    def size(self, name: str) -> int:
        try:
            found = os.lstat(self._path / name)
        except OSError as error:
            raise Refused(f"{name}: {error.strerror}") from None
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a link leads elsewhere
            raise Refused(f"{name} is no file")
        return found.st_size

    def read(self, name: str) -> bytes:
        self.size(name)
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise Refused(f"{name}: {error.strerror}") from None

    def write(self, name: str, content: Iterable[Piece]) -> None:
        unfinished = self._path / f"{name}{UNFINISHED}"
        with unfinished.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._path / name)
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)  # or the name may be lost with the machine
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class RemoteFolder:
    """What fsspec reaches. Object stores show a file once it is whole; where a store does not, digests find it."""

    def __init__(self, uri: str) -> None:
        from fsspec.core import url_to_fs  # slow to import

        self._files, root = url_to_fs(uri)
        self._root = str(root).rstrip("/")
        self._files.makedirs(self._root, exist_ok=True)

    def names(self) -> set[str]:
        return {str(path).rpartition("/")[2] for path in self._patiently(self._list)}

    def size(self, name: str) -> int:
        def ask() -> int:
            return int(self._files.size(self._at(name)) or 0)

        return self._patiently(ask, name)

    def read(self, name: str) -> bytes:
        def ask() -> bytes:
            return bytes(self._files.cat_file(self._at(name)))

        return self._patiently(ask, name)

    def write(self, name: str, content: Iterable[Piece]) -> None:
        self._files.pipe_file(self._at(name), b"".join(content))

    def remove(self, name: str) -> None:
        try:
            self._files.rm_file(self._at(name))
        except FileNotFoundError:
            return

    def _list(self) -> Any:
        self._files.invalidate_cache(self._root)  # another process has written there
        return self._files.ls(self._root, detail=False)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _patiently(self, ask: Callable[[], R], name: str = "the folder") -> R:
        """A store that does not answer must not make a training start over: it is asked again, and then the stage ends."""
        for number in range(TRIES):
            try:
                return ask()
            except FileNotFoundError:
                raise Refused(f"{name}: no such file") from None
            except Exception as error:  # each scheme's package has exceptions of its own
                if number + 1 == TRIES:
                    message = f"spec.checkpoint: {name} of {self._root} cannot be read: {type(error).__name__}: {str(error)[:300]}"
                    raise StageFailure("CheckpointsUnavailable", message, ExitCode.CHECKPOINTS_UNAVAILABLE) from None
                time.sleep(PAUSE * 2**number)
        raise AssertionError
