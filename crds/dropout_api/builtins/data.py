"""Arguments of the built-in data readers. A `uri` is a path, or what fsspec reads, as s3://bucket/rows.parquet."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dropout_api.builtins.arguments import Arguments, Column, Fraction, Uri, Width
from dropout_api.metrics import TaskKind


class Splitting(Arguments):
    """Rows are put in a seeded order and cut into three."""

    val_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.15


class StratifiedSplitting(Splitting):
    """Of classes, each split has them in the same shares."""

    stratify: bool = True


class SklearnArguments(Splitting):
    """A real data set that scikit-learn carries, standardised, split by a seeded permutation."""

    name: Literal["digits", "breast_cancer", "wine"]


class FashionMnistArguments(Arguments):
    """Fashion-MNIST from its four IDX files (gzipped or not) in a folder."""

    path: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=100, le=60_000)] | None = None
    """Use this many of the training images."""
    val_fraction: Fraction = 0.15


class TableArguments(StratifiedSplitting):
    """Rows of a CSV or Parquet file: numbers, and text where `categorical` names the column. The model standardises by itself."""

    uri: Uri
    target: Column | Annotated[list[Column], Field(min_length=1, max_length=1000)]
    """Column to answer; with Regression it may be several."""
    task: TaskKind = TaskKind.CLASSIFICATION
    features: Annotated[list[Column], Field(max_length=10_000)] = []
    """Columns to answer from; every column that nothing else names when empty."""
    drop: Annotated[list[Column], Field(max_length=10_000)] = []
    categorical: Annotated[list[Column], Field(max_length=1000)] = []
    """Columns of names or codes: each value becomes a column of 0 and 1. An empty one is a value like others."""
    segment: Column | None = None
    """Column whose values name the segments that metrics can be asked for; a feature only when `features` or `categorical`
    names it."""
    missing: Literal["Refuse", "DropRows", "Mean"] = "Refuse"
    """Of empty numbers; Mean is that of the training rows."""

    @property
    def targets(self) -> list[str]:
        return [self.target] if isinstance(self.target, str) else self.target

    @model_validator(mode="after")
    def _columns_have_one_part(self) -> Self:
        if self.task is TaskKind.CLASSIFICATION and len(self.targets) > 1:
            raise ValueError("target: several columns go with task: Regression; name one, whose values are the classes")
        for field, names in (("features", self.features), ("drop", self.drop), ("categorical", self.categorical)):
            if both := [name for name in names if name in self.targets]:
                raise ValueError(f"{field}: column '{both[0]}' is the target; name it in one of them")
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{field}: column '{twice[0]}' is named twice")
        if both := [name for name in (*self.features, *self.categorical) if name in self.drop]:
            raise ValueError(f"drop: column '{both[0]}' is also named as a feature; name it in one of them")
        if self.features and (lost := [name for name in self.categorical if name not in self.features]):
            raise ValueError(f"categorical: column '{lost[0]}' is not among features; add it there")
        return self


class NpzArguments(StratifiedSplitting):
    """Arrays of a NumPy .npz file (no pickles). Inputs: floats [N, ...], images [N, channels, height, width] of uint8, or token numbers
    [N, length] of other integers. Targets: classes [N] as integers or strings, or values [N] or [N, values] of floats. The model
    standardises floats [N, features] and [N, length, features] by itself."""

    uri: Uri
    inputs: Column = "inputs"
    targets: Column = "targets"
    segment: Column | None = None
    """Array [N] of names or numbers of segments."""


class SeriesArguments(Splitting):
    """Windows of a time series from a CSV or Parquet file, oldest row first: from `window` values the next `horizon`. The splits follow
    each other in time, and no window reaches from one into another. The model standardises by itself."""

    uri: Uri
    column: Column
    """The series; it is both what is seen and what is forecast."""
    covariates: Annotated[list[Column], Field(max_length=1000)] = []
    """Columns that are seen beside it."""
    window: Annotated[int, Field(ge=2, le=10_000)]
    horizon: Annotated[int, Field(ge=1, le=1000)] = 1


class TextArguments(StratifiedSplitting):
    """Texts of a CSV or Parquet file and their classes, as token numbers [N, length]: 0 pads, 1 is unknown. The vocabulary is made from
    training rows alone and recorded."""

    uri: Uri
    text: Column
    target: Column
    tokens: Literal["Words", "Characters"] = "Words"
    """Words: lower-cased runs of letters and digits, and each other sign."""
    vocabulary: Annotated[int, Field(ge=10, le=1_000_000)] = 5000
    length: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Tokens of a row; longer texts are cut."""
    segment: Column | None = None
    """Column whose values name the segments that metrics can be asked for."""


class ImagesArguments(StratifiedSplitting):
    """Pictures in one folder for each class, under `uri` itself or under its folders train, val and test; of these val and test may be
    left out and are then cut from train."""

    uri: Uri
    size: Annotated[list[Width], Field(min_length=2, max_length=2)] = [32, 32]
    """Height and width to which pictures are scaled."""
    channels: Literal[1, 3] = 3


class HuggingFaceArguments(StratifiedSplitting):
    """A data set that Hugging Face `datasets` reads, where it is installed: a folder of save_to_disk, or a name on the hub. Its columns
    become inputs and targets as arrays of an .npz file do; pictures become images, and must be of one size."""

    path: Uri
    name: Column | None = None
    """Configuration of a set on the hub."""
    inputs: Column
    """Column of numbers, lists, arrays or pictures."""
    target: Column
    split: Column = "train"
    """The split whose rows are cut into three; splits `validation` and `test` are taken as they are where the set has them."""


DATA: dict[str, type[Arguments]] = {
    "sklearn": SklearnArguments, "fashion_mnist": FashionMnistArguments, "csv": TableArguments, "parquet": TableArguments,
    "npz": NpzArguments, "series": SeriesArguments, "text": TextArguments, "images": ImagesArguments, "hugging_face": HuggingFaceArguments,
}
