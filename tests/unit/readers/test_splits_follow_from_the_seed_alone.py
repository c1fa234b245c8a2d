"""Each row is in one split; the same seed gives the same split, on any number of threads; classes keep shares, and time its order."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_trainer.errors import StageFailure
from dropout_trainer.readers.splitting import ordered, permutation, seeded, sizes, stratified

SHARES = st.fixed_dictionaries({"val": st.floats(0.05, 0.45), "test": st.floats(0.05, 0.45)})
QUARTER = st.floats(0.25, 0.3)
SEEDS = st.integers(0, 2**32 - 1)
GOLDEN_ORDER = [7, 0, 3, 4, 1, 5, 2, 6]


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(40, 400), wanted=SHARES, seed=SEEDS)
def test_each_row_is_in_one_split(rows: int, wanted: dict[str, float], seed: int) -> None:
    parts = seeded(rows, wanted, seed)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(rows))
    assert {name: len(part) for name, part in parts.items()} == sizes(rows, wanted)
    assert all(len(parts[name]) == round(rows * share) for name, share in wanted.items())


@settings(deadline=None, max_examples=50)
@given(data=st.data(), counts=st.lists(st.integers(20, 120), min_size=2, max_size=5), wanted=SHARES, seed=SEEDS)
def test_classes_keep_their_shares(data: st.DataObject, counts: list[int], wanted: dict[str, float], seed: int) -> None:
    rows = [number for number, count in enumerate(counts) for _ in range(count)]
    classes = torch.tensor(data.draw(st.permutations(rows)))
    parts = stratified(classes, [str(number) for number in range(len(counts))], wanted, seed)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(rows)))
    for name, share in wanted.items():
        found = torch.bincount(classes[parts[name]], minlength=len(counts)).tolist()
        assert all(abs(mine - count * share) <= 0.5 or mine == 1 for mine, count in zip(found, counts, strict=True))
    assert torch.bincount(classes[parts["train"]], minlength=len(counts)).min() >= 1


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(30, 300), reach=st.integers(2, 5), wanted=st.fixed_dictionaries(dict.fromkeys(("val", "test"), QUARTER)))
def test_windows_follow_in_time_and_share_no_row(rows: int, reach: int, wanted: dict[str, float]) -> None:
    stretches = list(ordered(rows, wanted, reach).values())
    covered = [range(starts.start, starts.stop + reach - 1) for starts in stretches]
    assert covered[0].start == 0
    assert covered[-1].stop == rows
    assert all(one.stop == other.start for one, other in pairwise(covered))


def test_the_order_is_the_same_on_every_machine() -> None:
    assert permutation(8, 7).tolist() == GOLDEN_ORDER


def test_the_number_of_threads_has_no_say() -> None:
    threads = torch.get_num_threads()
    try:
        orders = []
        for number in (1, 2):
            torch.set_num_threads(number)
            orders.append(permutation(100_000, 3))
        assert torch.equal(*orders)
    finally:
        torch.set_num_threads(threads)


def test_another_seed_gives_another_split() -> None:
    wanted = {"val": 0.2, "test": 0.2}
    classes = torch.arange(100) % 2
    assert not torch.equal(seeded(100, wanted, 1)["val"], seeded(100, wanted, 2)["val"])
    assert not torch.equal(stratified(classes, "ab", wanted, 1)["val"], stratified(classes, "ab", wanted, 2)["val"])


def test_a_stratified_split_is_not_sorted_by_class() -> None:
    classes = torch.arange(200) % 2
    found = classes[stratified(classes, "ab", {"val": 0.2, "test": 0.2}, 1)["train"]]
    assert found.tolist() not in (sorted(found.tolist()), sorted(found.tolist(), reverse=True))


@pytest.mark.parametrize(("rows", "wanted", "says"), [
    (9, {"val": 0.1, "test": 0.3}, "val_fraction: 9 rows leave 1 for val, but at least 2 are needed; raise val_fraction, or give more"),
    (9, {"val": 0.3, "test": 0.1}, "test_fraction: 9 rows leave 1 for test"),
    (5, {"val": 0.45, "test": 0.45}, "val_fraction: 5 rows leave 1 for train, but at least 2 are needed; lower val_fraction and test_"),
])
def test_too_few_rows_are_told_with_the_fraction(rows: int, wanted: dict[str, float], says: str) -> None:
    with pytest.raises(StageFailure, match=f"spec.data.args.{says}"):
        seeded(rows, wanted, 1)


def test_a_class_too_small_to_be_in_each_split_is_named() -> None:
    classes = torch.tensor([0] * 20 + [1] * 2)
    with pytest.raises(StageFailure, match=r"spec.data.args.stratify: class 'rare' has 2 rows, too few .* or set stratify: false"):
        stratified(classes, ["common", "rare"], {"val": 0.2, "test": 0.2}, 1)
