"""What is wrong with a table, or with what is asked of it, is one line that names the field, the column, a value and the remedy."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dropout_api.names import ExitCode
from dropout_trainer.errors import StageFailure

Refusal = Callable[..., StageFailure]
Write = Callable[..., str]
GOOD = "a,b,y\n" + "".join(f"{number},{number % 5},{number % 2}\n" for number in range(40))
SPEC, DATA = ExitCode.SPEC_INVALID, ExitCode.DATA_INVALID


@pytest.mark.parametrize(("content", "args", "code", "says"), [
    (GOOD, {"target": "Y"}, SPEC, "target: there is no column 'Y' in {uri}; its columns are a, b, y"),
    (GOOD, {"target": "y", "features": ["a", "c"]}, SPEC, "features: there is no column 'c' in {uri}; its columns are a, b, y"),
    (GOOD, {"target": "y", "drop": ["c"]}, SPEC, "drop: there is no column 'c'"),
    (GOOD, {"target": "y", "categorical": ["c"]}, SPEC, "categorical: there is no column 'c'"),
    (GOOD, {"target": "y", "segment": "c"}, SPEC, "segment: there is no column 'c'"),
    (GOOD, {"target": "y", "drop": ["a", "b"]}, SPEC, "features: target, drop and segment leave no column of {uri} to answer from"),
    (GOOD, {"target": ["a", "y"]}, SPEC, "spec.data.args: target: several columns go with task: Regression"),
    (GOOD, {"target": "y", "features": ["y"]}, SPEC, "features: column 'y' is the target"),
    (GOOD, {"target": "y", "features": ["a", "a"]}, SPEC, "features: column 'a' is named twice"),
    (GOOD, {"target": "y", "categorical": ["a"], "drop": ["a"]}, SPEC, "drop: column 'a' is also named as a feature"),
    (GOOD, {"target": "y", "categorical": ["a"], "features": ["b"]}, SPEC, "categorical: column 'a' is not among features; add it there"),
    (GOOD, {"target": "a"}, DATA, "target: column 'a' has 40 different values in 40 rows, too many for classes; for numbers use a"),
    (GOOD.replace("\n7,", "\nseven,"), {"target": "y"}, DATA,
     "features: column 'a' holds text, as 'seven' in row 8; name it in categorical if it holds names or codes, or in drop"),
    (GOOD.replace("\n7,", "\ninf,"), {"target": "y"}, DATA, "features: column 'a' holds infinity in row 8"),
    (GOOD.replace("\n7,", "\n,"), {"target": "y"}, DATA,
     "missing: column 'a' has no value in 1 of 40 rows, first in row 8; set missing: DropRows or Mean, or drop the column"),
    (GOOD.replace("7,2,1\n", "7,2,\n"), {"target": "y", "missing": "Mean"}, DATA, "missing: column 'y' has no value in 4 of 40 rows"),
    (GOOD.replace("7,2,1\n", "7,2,\n"), {"target": "y", "features": ["a"], "task": "Regression"}, DATA, "missing: column 'y' has no value"),
    (GOOD.replace(",1\n", ",one\n"), {"target": "y", "task": "Regression"}, DATA, "target: column 'y' holds text, as 'one' in row 2"),
    (GOOD.replace(",1\n", ",0\n"), {"target": "y"}, DATA, "target: column 'y' holds one class alone, '0'; at least two are needed"),
    ("a,e,y\n" + "1,,0\n2,,1\n" * 20, {"target": "y", "missing": "DropRows"}, DATA, "missing: every row of {uri} lacks some value"),
    ("a,y\n1,0\n2,1\n3,0\n", {"target": "y"}, DATA, "val_fraction: 3 rows leave 0 for val, but at least 2 are needed; raise val_fraction"),
    ("a,y\n" + "1,0\n2,1\n" * 20 + "3,2\n", {"target": "y"}, DATA, "stratify: class '2' has 1 rows, too few to be in each split"),
    ("", {"target": "y"}, DATA, "uri: {uri} is empty; its first line must name the columns"),
    ("a,y\n", {"target": "y"}, DATA, "uri: {uri} has columns but no rows"),
    ("a,a,y\n1,2,3\n", {"target": "y"}, DATA, "uri: {uri} has more than one column called a; rename them"),
    (",a,y\n0,1,2\n", {"target": "y"}, DATA, "uri: {uri}: column 1 has no name; give it one, or leave it out (pandas writes such an index"),
    (GOOD.replace("7,2,1\n", "7,,1\n"), {"target": "y", "segment": "b"}, DATA, "missing: column 'b' has no value in 4 of 40 rows"),
    ("a,y\n1,2\n1,2,3\n", {"target": "y"}, DATA, "uri: {uri} cannot be read as CSV in UTF-8: CSV parse error: Row #3: Expected 2 columns"),
])
def test_of_a_csv_file(content: str, args: dict[str, object], code: ExitCode, says: str, refusal: Refusal, write: Write) -> None:
    uri = write(content)
    end = refusal("csv", uri=uri, **args)
    assert says.format(uri=uri) in end.message
    assert end.exit_code == code


def test_of_a_file_in_another_encoding(refusal: Refusal, tmp_path: Path) -> None:
    for name, content in (("head.csv", "größe,y\n1,2\n"), ("body.csv", "a,y\nKöln,2\n")):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        assert "cannot be read as CSV in UTF-8" in refusal("csv", uri=str(tmp_path / name), target="y").message


def test_of_a_parquet_file(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert "broken.parquet cannot be read as Parquet" in refusal("parquet", uri=str(tmp_path / "broken.parquet"), target="y").message
    times = pa.table({"t": pa.array([0, 1], pa.timestamp("ms")), "y": [0, 1]})
    pq.write_table(times, tmp_path / "times.parquet")
    says = refusal("parquet", uri=str(tmp_path / "times.parquet"), target="y").message
    assert "features: column 't' holds timestamp[ms], not numbers; name it in categorical" in says
