"""Texts become numbers of a vocabulary that the training rows alone decide; the vocabulary turns them back."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_trainer.data import Data
from dropout_trainer.errors import StageFailure
from dropout_trainer.readers.tokens import encode, make_vocabulary, split_text

Read = Callable[..., Data]
Write = Callable[[str], str]
ROWS = "text,mood\n" + "".join(f"\"Word{row}, it's {('bad', 'GOOD')[row % 2]}!\",{('low', 'high')[row % 2]}\n" for row in range(40))


@pytest.fixture
def data(read: Read, write: Write) -> Data:
    return read("text", uri=write(ROWS), text="text", target="mood", length=9)


def test_words_are_lower_cased_and_signs_stand_alone() -> None:
    assert split_text("It's 2nd-rate_stuff…  Größe!", "Words") == ["it", "'", "s", "2nd", "-", "rate", "_", "stuff", "…", "größe", "!"]
    assert split_text("Aa b", "Characters") == ["A", "a", " ", "b"]


def test_words_of_other_splits_are_unknown(data: Data) -> None:
    def words(split: str) -> set[str]:
        return {data.vocabulary[number] for number in data.splits[split].inputs[:, 0].tolist()}

    assert len(words("train")) == len(data.train)
    assert words("val") == words("test") == {"<unknown>"}
    assert data.vocabulary[:2] == ("<pad>", "<unknown>")


def test_rows_end_with_padding(data: Data) -> None:
    assert data.train.inputs.dtype == torch.int64
    assert data.train.inputs.shape[1] == 9
    assert bool((data.train.inputs[:, -2:] == 0).all())
    assert bool((data.train.inputs[:, :7] > 0).all())


def test_classes_keep_their_shares(data: Data) -> None:
    assert data.class_names == ("high", "low")
    assert [torch.bincount(split.targets).tolist() for split in data.splits.values()] == [[14, 14], [3, 3], [3, 3]]


def test_the_most_frequent_tokens_are_kept_and_ties_go_by_the_alphabet() -> None:
    assert make_vocabulary([["b", "a"], ["c", "c", "d"]], 5) == ("<pad>", "<unknown>", "c", "a", "b")


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(st.lists(st.text("ab é!", min_size=1, max_size=3), max_size=8), min_size=1, max_size=8))
def test_encoding_can_be_undone(texts: list[list[str]]) -> None:
    vocabulary = make_vocabulary(texts, 1000)
    numbers = encode(texts, vocabulary, 8)
    assert numbers.shape == (len(texts), 8)
    assert [[vocabulary[number] for number in row[: len(text)]] for row, text in zip(numbers.tolist(), texts, strict=True)] == texts


def test_segments_are_named(read: Read, write: Write) -> None:
    rows = "text,mood,place\n" + "".join(f"word{number},{number % 2},{'xy'[number % 4 // 2]}\n" for number in range(40))
    data = read("text", uri=write(rows), text="text", target="mood", segment="place")
    assert data.segment_names == ("x", "y")


@pytest.mark.parametrize(("args", "content", "says"), [
    ({"text": "texts", "target": "mood"}, ROWS, "text: there is no column 'texts' in "),
    ({"text": "text", "target": "text"}, ROWS, "target: column 'text' has 40 different values in 40 rows, too many for classes"),
    ({"text": "text", "target": "mood"}, ROWS + ",low\n", "text: column 'text' is empty in 1 rows, first in row 41; fill or"),
    ({"text": "text", "target": "mood"}, ROWS + "word,\n", "target: column 'mood' is empty in 1 rows, first in row 41"),
])
def test_what_cannot_be_is_told(
        args: dict[str, object], content: str, says: str, write: Write, refusal: Callable[..., StageFailure]) -> None:
    assert f"spec.data.args.{says}" in refusal("text", uri=write(content), **args).message
