"""In order, once, and whole, whatever happened to the process or the disk."""

import logging
import resource
from pathlib import Path

import pytest

from dropout_trainer.train.points import Points
from dropout_trainer.train.tracking.backlog import Backlog
from dropout_trainer.train.tracking.spool import Spool
from dropout_trainer.train.tracking.writes import Params, Resume, RunTag, Text, Write

WRITES: list[Write] = [
    RunTag("a", "b"), Params({"seed": "1"}), Points(1, 2, (("loss", 0.1), ("top", float("inf")), ("zero", -0.0))),
    Text("t.json", "ä\n\ud800"), Resume(),
]


def points(first: int, last: int) -> list[Write]:
    return [Points(step, step, (("loss", 1 / step),)) for step in range(first, last + 1)]


def steps(writes: list[Write]) -> list[int]:
    return [write.step for write in writes if isinstance(write, Points)]


def left(spool: Spool) -> list[Write]:
    return [write for write, _ in spool.read(100_000)]


def test_every_kind_comes_back_as_it_was(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.append([*WRITES, Points(2, 3, (("loss", float("nan")),))])
    first.close()
    again = Spool(tmp_path)
    assert len(again) == 6
    *found, last = left(again)
    assert found == WRITES
    assert repr(found) == repr(WRITES)  # tells zeros of different signs apart
    assert repr(last) == repr(Points(2, 3, (("loss", float("nan")),)))
    again.close()


def test_the_next_process_begins_after_what_was_acknowledged_and_appends_behind_it(tmp_path: Path) -> None:
    first = Spool(tmp_path, segment=200)
    for step in range(1, 31):
        first.append(points(step, step))
    first.acknowledge(first.read(11)[-1][1], 11)
    first.close()
    second = Spool(tmp_path)
    second.append(points(31, 32))
    assert len(second) == 21
    assert steps(left(second)) == list(range(12, 33))
    second.close()


def test_what_is_asked_for_between_is_all_that_is_not_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment=200)
    for step in range(1, 31):
        spool.append(points(step, step))
    found = spool.read(20)
    spool.acknowledge(found[4][1], 5)
    assert steps(list(spool.unsent())) == list(range(6, 31))
    assert steps(left(spool)) == list(range(21, 31))
    spool.close()


@pytest.mark.parametrize(("acknowledged", "resumed"), [(0, False), (4, False), (5, True), (6, True)])
def test_the_next_process_knows_whether_a_resume_was_acknowledged(tmp_path: Path, acknowledged: int, resumed: bool) -> None:
    first = Spool(tmp_path, segment=1)
    for write in [*points(1, 4), Resume(), *points(4, 6)]:
        first.append([write])
    if acknowledged:
        first.acknowledge(first.read(acknowledged)[-1][1], acknowledged)
    first.close()
    second = Spool(tmp_path)
    assert second.resumed is resumed
    second.close()


@pytest.mark.parametrize("note", [b"", b"rubbish", b"99 x"])
def test_a_lost_note_of_what_was_sent_repeats_and_loses_nothing(tmp_path: Path, note: bytes) -> None:
    first = Spool(tmp_path)
    first.append(points(1, 10))
    first.acknowledge(first.read(5)[-1][1], 5)
    first.close()
    (tmp_path / "sent").write_bytes(note)
    second = Spool(tmp_path)
    assert second.resumed is bool(note)  # of a note that was lost nobody knows
    assert steps(left(second)) == list(range(1, 11))
    second.close()


def test_a_log_torn_at_any_byte_gives_every_whole_record(tmp_path: Path) -> None:
    whole = Spool(tmp_path)
    whole.append([*WRITES, *points(1, 1)])
    whole.close()
    segment = next(tmp_path.glob("*.jsonl"))
    content = segment.read_bytes()
    for length in range(len(content) + 1):
        segment.write_bytes(content[:length])
        spool = Spool(tmp_path)
        spool.append(points(2, 2))
        count = content[:length].count(b"\n")
        assert len(spool) == count + 1
        assert left(spool) == [*[*WRITES, *points(1, 1)][:count], *points(2, 2)]
        spool.close()
        for other in set(tmp_path.glob("*.jsonl")) - {segment}:
            other.unlink()


@pytest.mark.parametrize("line", [
    b"\0\0\0", b"\xff", b"[]", b"{}", b'["points",1,2,[["loss","x"]]]', b'["points",1,2,[["loss"]]]',
    b'["points","1",2,[]]', b'["tag","a"]', b'["os.system","x"]',
])
def test_a_record_that_no_process_wrote_is_skipped(tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    first = Spool(tmp_path)
    first.append(points(1, 2))
    first.close()
    segment = next(tmp_path.glob("*.jsonl"))
    before, after = segment.read_bytes().splitlines()
    segment.write_bytes(b"\n".join([before, line, after, b""]))
    spool = Spool(tmp_path)
    assert steps(left(spool)) == [1, 2]
    assert len(spool) == 2
    assert "skipped" in caplog.text
    spool.close()


def test_a_disk_that_becomes_full_in_the_middle_of_a_record_tears_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(points(1, 5))
    size = next(tmp_path.glob("*.jsonl")).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (10, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
        try:
            with pytest.raises(OSError, match=r"No space left|File too large"):
                spool.append(points(6, 9))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.append(points(6, 9))
    assert steps(left(spool)) == list(range(1, 10))
    spool.close()


def test_what_mlflow_has_takes_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=2000, segment=500)
    for first in range(1, 1000, 10):
        spool.append(points(first, first + 9))
        found = spool.read(100)
        assert steps([write for write, _ in found]) == list(range(first, first + 10))
        spool.acknowledge(found[-1][1], len(found))
    spool.close()
    assert not tmp_path.exists()


def test_order_survives_a_disk_that_is_full_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backlog = Backlog(lambda: Spool(tmp_path, limit=400, segment=100))
    backlog.open()
    sent: list[Write] = []
    with caplog.at_level(logging.WARNING):
        for first in range(1, 300, 3):
            backlog.append(points(first, first + 2))
            if first % 5 == 0:
                for _ in range(3):
                    request = backlog.request()
                    sent += request.writes
                    backlog.done(request)
    while len(backlog):
        request = backlog.request()
        sent += request.writes
        backlog.done(request)
    backlog.close()
    assert steps(sent) == list(range(1, 301))
    assert len(caplog.records) == 1
