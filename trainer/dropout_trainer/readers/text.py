"""Texts of a CSV or Parquet file and their classes."""

from dropout_api.builtins.data import TextArguments
from dropout_trainer.data import Data, Split
from dropout_trainer.readers.columns import Columns, read_either
from dropout_trainer.readers.failures import invalid
from dropout_trainer.readers.labels import class_labels, number_labels
from dropout_trainer.readers.splitting import TRAIN, shares, split_rows, take
from dropout_trainer.readers.tokens import encode, make_vocabulary, split_text


def text(arguments: TextArguments, seed: int) -> Data:
    """Inputs [N, length] of int64. The vocabulary is made from the training rows.

    Raises StageFailure for columns that are not there or have gaps.
    """
    columns = read_either(arguments.uri)
    columns.require("text", [arguments.text])
    columns.require("target", [arguments.target])
    columns.require("segment", [arguments.segment] if arguments.segment else [])
    labels = class_labels(_given(columns, arguments.target, "target"), "target", arguments.target)
    segments = number_labels(_given(columns, arguments.segment, "segment")) if arguments.segment else None
    texts = [split_text(each, arguments.tokens) for each in _given(columns, arguments.text, "text")]
    parts = split_rows(labels.numbers, labels.names if arguments.stratify else None, shares(arguments), seed)
    vocabulary = make_vocabulary((texts[row] for row in parts[TRAIN].tolist()), arguments.vocabulary)
    numbers = None if segments is None else segments.numbers
    whole = Split(encode(texts, vocabulary, arguments.length), labels.numbers, numbers)
    train, val, test = take(whole, parts)
    return Data(
        train, val, test, class_names=labels.names, segment_names=segments.names if segments else (),
        vocabulary=vocabulary,
    )


def _given(columns: Columns, name: str, field: str) -> list[str]:
    values = columns.texts(name)
    if "" in values:
        where = f"{values.count('')} rows, first in row {1 + values.index('')}"
        raise invalid(field, f"column '{name}' is empty in {where}; fill or drop those rows")
    return values
