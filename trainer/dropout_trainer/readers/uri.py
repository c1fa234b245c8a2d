"""Files by URI: a path, or what fsspec reads, as s3://bucket/rows.parquet where the scheme's package is installed."""

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
from fsspec.core import url_to_fs

from dropout_trainer.errors import StageFailure
from dropout_trainer.readers.failures import MOUNT, invalid, missing, misspelt

IMAGE = "derive an image for spec.image from the platform's trainer image that has it"


def read_bytes(uri: str, field: str = "uri", unpack: bool = False) -> bytes:
    """The whole content; with `unpack` decompressed as the name's ending says (.gz, .bz2, .xz, .zip).

    Raises StageFailure that names `field` when there is no such file, or it cannot be reached or read.
    """
    with _reaching(uri, field), fsspec.open(uri, "rb", compression="infer" if unpack else None) as file:
        content: bytes = file.read()
        return content


class Folder:
    """The files below a folder by their paths in it, in the paths' order. Raises StageFailure when there is no such folder."""

    def __init__(self, uri: str, field: str = "uri") -> None:
        self.uri, self.field = uri.rstrip("/"), field
        with _reaching(uri, field):
            self._files, root = url_to_fs(uri)
            root = root.rstrip("/")
            if not self._files.isdir(root):
                raise missing(field, f"there is no folder {uri}; {MOUNT}")
            self._found = {path.removeprefix(root).lstrip("/"): path for path in sorted(self._files.find(root))}

    @property
    def paths(self) -> list[str]:
        return list(self._found)

    def read(self, path: str) -> bytes:
        with _reaching(f"{self.uri}/{path}", self.field):
            content: bytes = self._files.cat_file(self._found[path])
            return content


@contextmanager
def _reaching(uri: str, field: str) -> Iterator[None]:
    try:
        yield
    except StageFailure:
        raise
    except ImportError as error:
        raise missing(field, f"{uri} needs a package that spec.image lacks ({_first_line(error)}); {IMAGE}") from None
    except FileNotFoundError:
        remedy = "see that the address is right" if "://" in uri else MOUNT
        raise missing(field, f"there is no {uri}; {remedy}") from None
    except IsADirectoryError:
        raise invalid(field, f"{uri} is a folder, but a file is needed") from None
    except PermissionError as error:
        remedy = "let the pod's user or credentials read it (spec.podTemplate.env, serviceAccountName)"
        raise missing(field, f"{uri} may not be read ({_first_line(error)}); {remedy}") from None
    except Exception as error:  # each scheme's package has exceptions of its own
        if isinstance(error, ValueError) and str(error).startswith("Protocol not known"):
            known = "use a path, or file://, memory://, s3://, gs://, https:// and others that fsspec knows"
            raise misspelt(field, f"{uri}: there is no scheme '{uri.partition(':')[0]}'; {known}") from None
        raise invalid(field, f"{uri} cannot be read: {type(error).__name__}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:300]
