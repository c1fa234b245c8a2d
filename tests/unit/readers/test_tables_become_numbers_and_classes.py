"""A table's columns become raw values with names and a scaling, its targets classes or values; whatever pyarrow would take a column for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dropout_trainer.data import Data, digest
from dropout_trainer.readers.columns import read_csv, read_parquet

Read = Callable[..., Data]
Write = Callable[[str], str]
ROWS = "age,income,town,club,bought\n" + "".join(
    f"{20 + number},{1000.5 * (number % 7)},{('Ulm', 'Bonn', 'Köln')[number % 3]},{'AB'[number % 2]},{('no', 'yes')[number % 2]}\n"
    for number in range(60)
)


@pytest.fixture
def data(read: Read, write: Write) -> Data:
    return read("csv", uri=write(ROWS), target="bought", categorical=["town"], segment="club")


def test_columns_keep_their_order_and_values_their_units(data: Data) -> None:
    assert data.feature_names == ("age", "income", "town=Bonn", "town=Köln", "town=Ulm")
    ages = torch.cat([split.inputs[:, 0] for split in data.splits.values()])
    assert sorted(ages.tolist()) == list(range(20, 80))
    assert all(torch.equal(split.inputs[:, 2:].sum(1), torch.ones(len(split))) for split in data.splits.values())


def test_the_scaling_is_that_of_the_training_rows_and_leaves_categories_alone(data: Data) -> None:
    assert data.scaling is not None
    numbers = data.train.inputs[:, :2].double()
    assert torch.allclose(data.scaling.mean[:2], numbers.mean(0).float())
    assert torch.allclose(data.scaling.deviation[:2], numbers.std(0, correction=0).float())
    assert data.scaling.mean[2:].tolist() == [0, 0, 0]
    assert data.scaling.deviation[2:].tolist() == [1, 1, 1]


def test_classes_and_segments_are_named_and_in_step(data: Data) -> None:
    assert data.class_names == ("no", "yes")
    assert data.segment_names == ("A", "B")
    for split in data.splits.values():
        assert torch.equal(split.inputs[:, 0].long() % 2, split.targets)
        assert split.segments is not None
        assert torch.equal(split.segments, split.targets)


def test_the_same_seed_gives_the_same_data_to_the_byte(read: Read, write: Write, data: Data) -> None:
    args = {"uri": write(ROWS), "target": "bought", "categorical": ["town"], "segment": "club"}
    assert digest(read("csv", **args)) == digest(data)
    assert digest(read("csv", seed=2, **args)) != digest(data)


def test_csv_gzip_and_parquet_give_the_same_data(read: Read, write: Write, tmp_path: Path, data: Data) -> None:
    table = pa.csv.read_csv(write(ROWS))
    pq.write_table(table, tmp_path / "rows.parquet")
    with fsspec.open(str(tmp_path / "rows.csv.gz"), "wt", compression="gzip", encoding="utf-8") as file:
        file.write(ROWS)
    args = {"target": "bought", "categorical": ["town"], "segment": "club"}
    assert digest(read("parquet", uri=str(tmp_path / "rows.parquet"), **args)) == digest(data)
    assert digest(read("csv", uri=str(tmp_path / "rows.csv.gz"), **args)) == digest(data)


def test_numbers_as_classes_are_in_the_numbers_order(read: Read, write: Write) -> None:
    path = write("x,y\n" + "".join(f"{number},{number % 12}\n" for number in range(120)))
    assert read("csv", uri=path, target="y").class_names == tuple(map(str, range(12)))


def test_several_columns_are_values_to_answer(read: Read, write: Write) -> None:
    path = write("x,y,z\n" + "".join(f"{number},{-number},{number / 4}\n" for number in range(40)))
    data = read("csv", uri=path, target=["y", "z"], task="Regression")
    assert torch.equal(data.train.targets, torch.cat([-data.train.inputs, data.train.inputs / 4], 1))
    assert data.class_names == ()


def test_features_choose_and_order(read: Read, write: Write) -> None:
    data = read("csv", uri=write(ROWS), target="bought", features=["income", "club", "age"], categorical=["club"], segment="club")
    assert data.feature_names == ("income", "club=A", "club=B", "age")


def test_a_segment_is_a_feature_where_it_is_named_as_one(read: Read, write: Write) -> None:
    assert "club=A" not in read("csv", uri=write(ROWS), target="bought", categorical=["town"], segment="club").feature_names
    assert "club=A" in read("csv", uri=write(ROWS), target="bought", categorical=["town", "club"], segment="club").feature_names


GAPS = "x,y\n" + "".join(f"{'NA' if number == 7 else number},{number % 2}\n" for number in range(40))


def test_missing_numbers_are_dropped_or_filled_with_the_training_rows_mean(read: Read, write: Write) -> None:
    dropped = read("csv", uri=write(GAPS), target="y", missing="DropRows")
    assert sum(map(len, dropped.splits.values())) == 39
    filled = read("csv", uri=write(GAPS), target="y", missing="Mean")
    known = [value for value in filled.train.inputs.flatten().tolist() if value.is_integer()]
    rest = [value for split in filled.splits.values() for value in split.inputs.flatten().tolist() if value not in range(40)]
    assert len(rest) <= 1
    assert filled.scaling is not None
    assert float(filled.scaling.mean) == pytest.approx(sum(known) / len(known), abs=0.5)


def test_a_category_that_training_rows_lack_is_zero_in_all_columns(read: Read, write: Write) -> None:
    path = write("c,y\n" + "".join(f"{'ab'[number % 2]},{number % 2}\n" for number in range(39)) + "rare,1\n")
    for seed in range(30):
        data = read("csv", seed=seed, uri=path, target="y", categorical=["c"])
        if "c=rare" not in data.feature_names:
            held = torch.cat([data.val.inputs, data.test.inputs])
            assert (held.sum(1) == 0).sum() == 1
            return
    raise AssertionError("no seed of thirty has put the row outside of the training rows")


@pytest.mark.parametrize(("values", "expected"), [
    (["1", " 2 ", "+3", "4e2", ".5", "-0"], [1, 2, 3, 400, 0.5, 0]),
    (["007", "1.", "", "NaN", "null", "N/A"], [7, 1, None, None, None, None]),
    (["true", "1", "1", "1", "1", "1"], "true"),
    (["2020-01-01"] * 6, "2020-01-01"),
])
def test_text_is_parsed_by_us(values: list[str], expected: Any, write: Write) -> None:
    columns = read_csv(write("v,w\n" + "".join(f"{value},x\n" for value in values)))
    assert columns.texts("v") == [value.strip() for value in values]
    if isinstance(expected, str):
        with pytest.raises(Exception, match=f"column 'v' holds text, as '{expected}' in row 1; do something"):
            columns.numbers("v", "features", "do something")
    else:
        assert [None if value != value else value for value in columns.numbers("v", "features", "").tolist()] == expected


def test_a_csv_file_may_have_quotes_line_breaks_and_a_byte_order_mark(write: Write) -> None:
    columns = read_csv(write('\ufeff"first, of all",b\r\n"one\ntwo, ""three""",2\r\n'))
    assert columns.names == ["first, of all", "b"]
    assert columns.texts("first, of all") == ['one\ntwo, "three"']


def test_parquet_types_are_numbers_and_names(tmp_path: Path) -> None:
    import decimal

    table = pa.table({
        "whole": pa.array([1.0, 2.0, None]), "flag": pa.array([True, False, True]), "coded": pa.array(["a", "b", "a"]).dictionary_encode(),
        "money": pa.array([decimal.Decimal("1.50")] * 3), "large": pa.array(["x", None, " y "], pa.large_string()), "nothing": pa.nulls(3),
    })
    pq.write_table(table, tmp_path / "t.parquet")
    columns = read_parquet(str(tmp_path / "t.parquet"))
    assert columns.texts("whole") == ["1", "2", ""]
    assert columns.texts("flag") == ["true", "false", "true"]
    assert columns.numbers("flag", "", "").tolist() == [1, 0, 1]
    assert columns.texts("coded") == ["a", "b", "a"]
    assert columns.numbers("money", "", "").tolist() == [1.5, 1.5, 1.5]
    assert columns.texts("large") == ["x", "", "y"]
    assert all(value != value for value in columns.numbers("nothing", "", "").tolist())
