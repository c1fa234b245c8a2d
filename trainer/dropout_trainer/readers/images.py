"""Pictures in one folder for each class."""

from dataclasses import dataclass

import torch

from dropout_api.builtins.data import ImagesArguments
from dropout_trainer.data import Data, Split
from dropout_trainer.readers.failures import invalid
from dropout_trainer.readers.labels import class_labels
from dropout_trainer.readers.pictures import UNREADABLE, decode
from dropout_trainer.readers.splitting import TEST, TRAIN, VAL, carve, shares
from dropout_trainer.readers.uri import Folder

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LAYOUT = "it must hold a folder of pictures for each class, or such folders under train, val and test"
SPLITS = (TRAIN, VAL, TEST)


@dataclass(frozen=True)
class Picture:
    path: str
    split: str
    label: str


def images(arguments: ImagesArguments, seed: int) -> Data:
    """Inputs [N, channels, height, width] in 0…1. Folders train, val and test, where there are such, are the splits; what is missing of val
    and test is cut from train. Raises StageFailure for a folder that holds no classes, and for a broken picture."""
    folder = Folder(arguments.uri)
    found = catalogue(folder.paths)
    names = {picture.split for picture in found}
    if TRAIN not in names:
        raise invalid("uri", f"{arguments.uri} holds no pictures ({', '.join(ENDINGS)}) to train on; {LAYOUT}")
    labels = class_labels([picture.label for picture in found], "uri", arguments.uri, "folder")
    whole = Split(torch.stack([_decoded(folder, picture, arguments) for picture in found]), labels.numbers)
    given = {name: whole.take(torch.tensor([row for row, one in enumerate(found) if one.split == name])) for name in names}
    train, val, test = carve(given, shares(arguments), seed, labels.names if arguments.stratify else None)
    return Data(train, val, test, class_names=labels.names)


def catalogue(paths: list[str]) -> list[Picture]:
    """The pictures among `paths`, each below a folder; hidden files and others are passed over.

    Where there is a folder train, only pictures under train, val and test count. The folder that a picture lies in is its class.
    """
    pictures = [path for path in paths if path.lower().endswith(ENDINGS) and not any(part.startswith(".") for part in path.split("/"))]
    if any(path.startswith(f"{TRAIN}/") for path in pictures):
        split = [path.split("/") for path in pictures]
        return [Picture("/".join(parts), parts[0], parts[1]) for parts in split if parts[0] in SPLITS and len(parts) > 2]
    return [Picture(path, TRAIN, path.split("/")[0]) for path in pictures if "/" in path]


def _decoded(folder: Folder, picture: Picture, arguments: ImagesArguments) -> torch.Tensor:
    height, width = arguments.size
    try:
        return decode(folder.read(picture.path), (height, width), arguments.channels)
    except UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise invalid("uri", f"{folder.uri}/{picture.path} cannot be read as a picture ({reason}); replace or remove it") from None
