"""Two trainings' facts go in; an outcome and every difference come out, the one that explains the others first."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dropout_trainer.reproduce.compare import Facts, Kind, Outcome, compare
from dropout_trainer.reproduce.recorded import curve

PARAMS = {
    "version.torch": "2.13.0", "version.numpy": "2.1", "seed": "42", "seed.torch": "7", "data.sha256": "a" * 64, "threads": "2",
    "device": "cpu", "training.epochs": "3", "determinism": "WarnOnly", "image": "trainer@sha256:1",
}
CURVE = [{"train_loss": 1.0, "val_loss": 1.1}, {"train_loss": 0.5, "val_loss": 0.7}, {"train_loss": 0.25, "val_loss": 0.6}]
FILES = {"weights.safetensors": "b" * 64, "eval.pt2": "c" * 64, "config.json": "d" * 64}
BEFORE = Facts(PARAMS, CURVE, FILES)
OTHER_CURVE = [CURVE[0], {"train_loss": 0.5, "val_loss": 0.7000000000000001}, CURVE[2]]


def with_params(**changes: str) -> Facts:
    return replace(BEFORE, params=PARAMS | {name.replace("__", "."): value for name, value in changes.items()})


def test_the_same_is_equal_whatever_a_newer_trainer_records_beside_it() -> None:
    found = compare(BEFORE, replace(BEFORE, params=PARAMS | {"version.torchmetrics": "1.9"}, files=FILES | {"config.json": "e" * 64}))

    assert (found.outcome, found.differences, found.epochs, found.files) == (
        Outcome.EQUAL, (), 3, ("weights.safetensors", "eval.pt2"))


@pytest.mark.parametrize(("here", "outcome", "kind", "what"), [
    (with_params(seed__torch="8"), Outcome.DIFFERS, Kind.SEED, "seed.torch"),
    (with_params(data__sha256="f" * 64), Outcome.DIFFERS, Kind.DATA, "data.sha256"),
    (with_params(version__torch="2.14.0"), Outcome.EQUAL, Kind.VERSION, "version.torch"),
    (with_params(threads="4"), Outcome.EQUAL, Kind.MACHINE, "threads"),
    (replace(BEFORE, curve=OTHER_CURVE), Outcome.DIFFERS, Kind.CURVE, "val_loss of epoch 2"),
    (replace(BEFORE, curve=CURVE[:2]), Outcome.DIFFERS, Kind.CURVE, "number of epochs"),
    (replace(BEFORE, files=FILES | {"weights.safetensors": "0" * 64}), Outcome.DIFFERS, Kind.WEIGHTS, "weights.safetensors"),
    (replace(BEFORE, files=FILES | {"eval.pt2": "0" * 64}), Outcome.DIFFERS, Kind.PROGRAM, "eval.pt2"),
    (replace(with_params(version__torch="2.14.0"), curve=OTHER_CURVE), Outcome.UNDECIDED, Kind.VERSION, "version.torch"),
    (replace(with_params(device="cuda"), curve=OTHER_CURVE), Outcome.UNDECIDED, Kind.MACHINE, "device"),
    (replace(with_params(version__torch="2.14.0", seed="43"), curve=OTHER_CURVE), Outcome.DIFFERS, Kind.VERSION, "version.torch"),
])
def test_each_difference_is_named(here: Facts, outcome: Outcome, kind: Kind, what: str) -> None:
    found = compare(BEFORE, here)

    assert found.outcome is outcome
    assert (found.differences[0].kind, found.differences[0].what) == (kind, what)


def test_all_differing_facts_are_told_and_the_one_that_leads_to_the_others_first() -> None:
    here = replace(with_params(seed="43", version__torch="2.14.0", threads="1"), curve=OTHER_CURVE, files={"eval.pt2": "0" * 64})

    assert [item.kind for item in compare(BEFORE, here).differences] == [Kind.VERSION, Kind.SEED, Kind.MACHINE, Kind.CURVE, Kind.PROGRAM]


def test_a_recorded_fact_that_this_machine_does_not_know_is_a_difference_of_machines() -> None:
    here = replace(BEFORE, params={name: value for name, value in PARAMS.items() if name != "image"})

    (found,) = compare(BEFORE, here).differences
    assert (found.kind, found.what, found.here) == (Kind.MACHINE, "image", "unknown")


def test_the_first_epochs_alone_are_compared_without_weights() -> None:
    found = compare(BEFORE, replace(BEFORE, curve=CURVE[:1], files={}), epochs=1)

    assert (found.outcome, found.epochs, found.files) == (Outcome.EQUAL, 1, ())


def test_a_run_without_a_curve_decides_nothing() -> None:
    assert compare(replace(BEFORE, curve=[]), BEFORE).outcome is Outcome.UNDECIDED


def test_curves_of_other_trainings_in_the_same_run_do_not_count() -> None:
    recorded = [epoch | {"fold1_val_loss": 1.0} for epoch in CURVE] + [{"fold1_val_loss": 1.0}]

    assert compare(replace(BEFORE, curve=recorded), BEFORE).outcome is Outcome.EQUAL


def test_nan_is_the_same_as_nan() -> None:
    facts = replace(BEFORE, curve=[{"val_mape": float("nan")}])

    assert compare(facts, facts).outcome is Outcome.EQUAL


def test_of_a_run_that_was_trained_twice_the_last_training_counts() -> None:
    points = [(1, 10, 9.0), (2, 20, 8.0), (3, 30, 7.0), (1, 40, 1.0), (2, 50, 0.5)]
    history = [SimpleNamespace(step=step, timestamp=time, value=value) for step, time, value in points]

    assert curve({"val_loss": history}) == [{"val_loss": 1.0}, {"val_loss": 0.5}]
