"""Properties over whole lives of a job: the operator is cut off anywhere, the cluster does anything, time passes."""

from collections.abc import Callable, Sequence

import pytest
from dropout_testing.worlds import REF, SOURCE, Simulation, again, kinds, passed_report, rejected_report, spec, train_report
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_api.names import Stage
from dropout_api.spec import JobSpec
from dropout_api.status import Phase
from dropout_operator.planning import plan
from dropout_operator.world import SourceRun

OTHERS = {
    "time passes": lambda sim: sim.time_passes(),
    "a day passes": lambda sim: sim.time_passes(86_400),
    "the pod appears": lambda sim: sim.pod_appears(),
    "the pod starts": lambda sim: sim.pod_starts(),
    "training ends well": lambda sim: sim.pod_ends(message=train_report()),
    "training fails": lambda sim: sim.pod_ends(exit_code=70),
    "training is killed": lambda sim: sim.pod_ends(exit_code=137),
    "training says it was preempted": lambda sim: sim.pod_ends(exit_code=75),
    "the pod is evicted": lambda sim: sim.pod_is_evicted(),
    "the pod is deleted": lambda sim: sim.pod_is_deleted(),
    "the eviction is taken back": lambda sim: sim.eviction_is_taken_back(),
    "training leaves garbage": lambda sim: sim.pod_ends(message="\x00{"),
    "the verifier starts": lambda sim: sim.pod_starts(Stage.VERIFY),
    "the verifier passes": lambda sim: sim.pod_ends(Stage.VERIFY, message=passed_report()),
    "the verifier rejects": lambda sim: sim.pod_ends(Stage.VERIFY, message=rejected_report()),
    "the verifier leaves garbage": lambda sim: sim.pod_ends(Stage.VERIFY, message="[]"),
    "the verifier's pod is lost": lambda sim: sim.pods.clear(),
    "the verifier gives up": lambda sim: sim.pod_ends(Stage.VERIFY, exit_code=69),
    "garbage is collected": lambda sim: sim.garbage_is_collected(),
    "someone deletes the Job": lambda sim: sim.someone_deletes_the_job(),
    "the user suspends": lambda sim: sim.suspend(),
    "the user resumes": lambda sim: sim.suspend(False),
    "MLflow goes away": lambda sim: setattr(sim, "mlflow_away", True),
    "MLflow comes back": lambda sim: setattr(sim, "mlflow_away", False),
    "the source run is deleted": lambda sim: setattr(sim, "source", SourceRun(SOURCE.id)),
}
wanted = st.sampled_from([spec(), again()])
steps = st.lists(st.tuples(st.sampled_from(sorted(OTHERS)), st.none() | st.integers(0, 4)), max_size=25)


@settings(max_examples=80, deadline=None)
@given(wanted, steps)
def test_a_look_after_a_look_finds_nothing_to_do(wanted: JobSpec, story: list[tuple[str, int | None]]) -> None:
    sim = Simulation(wanted)
    for step, cut in story:
        OTHERS[step](sim)
        sim.reconcile(cut)
        sim.reconcile()
        left = kinds(plan(sim.world()).actions)
        assert left in ([], ["EnsureRun"], ["FindSource"]), f"after {step!r} cut at {cut}"
        assert left == [] or sim.mlflow_away


@settings(max_examples=80, deadline=None)
@given(wanted, steps)
def test_no_story_makes_two_of_anything_or_takes_a_fact_back(wanted: JobSpec, story: list[tuple[str, int | None]]) -> None:
    sim = Simulation(wanted)
    ended: Phase | None = None
    for step, cut in story:
        before = sim.state
        OTHERS[step](sim)
        sim.reconcile(cut)

        assert len(sim.runs) <= 1
        train = [place for place in sim.created if place[0] == REF.namespace]
        assert len(train) - len(set(train)) <= sum(OTHERS_THAT_DELETE.count(name) for name, _ in story)
        assert len(sim.live(Stage.TRAIN)) <= (wanted.source is None)
        assert len(sim.live(Stage.VERIFY)) <= 1
        open_attempts = [attempt for attempt in sim.state.attempts if attempt.end_time is None]
        assert len(open_attempts) <= 1
        assert [attempt.number for attempt in sim.state.attempts] == list(range(1, len(sim.state.attempts) + 1))
        assert before.run is None or sim.state.run == before.run
        assert len(sim.state.attempts) >= len(before.attempts)
        assert ended is None or sim.phase is ended
        ended = sim.phase if sim.phase.terminal else None


OTHERS_THAT_DELETE = ["someone deletes the Job", "the user suspends"]


def play(sim: Simulation, events: Sequence[Callable[[], object]], cut: int, down: bool) -> None:
    """Each event and what the operator does of it, but that it is cut off after `cut` actions; `down` says until when."""
    left: int | None = cut
    for event in events:
        event()
        done = len(sim.reconcile(left))
        if left is not None and done >= left:
            left = None
            if not down:
                sim.reconcile()
        elif left is not None:
            left -= done


@pytest.mark.parametrize("down", [False, True], ids=["at once", "after the next event"])
@pytest.mark.parametrize("cut", range(24))
def test_a_job_ends_the_same_wherever_the_operator_is_cut_off(cut: int, down: bool) -> None:
    """Started again at once, or only after the user or the cluster went on."""
    sim = Simulation()
    events = [lambda: None, sim.pod_starts, sim.suspend, lambda: sim.suspend(False), sim.garbage_is_collected, sim.pod_starts,
              lambda: sim.pod_ends(message=train_report()), lambda: sim.pod_starts(Stage.VERIFY),
              lambda: sim.pod_ends(Stage.VERIFY, message=passed_report())]
    left: int | None = cut
    for event in events:
        event()
        done = len(sim.reconcile(left))
        if left is not None and done >= left:
            left = None  # here it died; from now on it lives
            if not down:
                sim.reconcile()
        elif left is not None:
            left -= done
    for _ in range(3):  # what waited for an event that came while it was down
        for settle in (sim.garbage_is_collected, sim.pod_starts, lambda: sim.pod_ends(message=train_report()),
                       lambda: sim.pod_starts(Stage.VERIFY), lambda: sim.pod_ends(Stage.VERIFY, message=passed_report())):
            sim.reconcile()
            settle()
    sim.reconcile()

    assert sim.phase is Phase.SUCCEEDED
    assert len(set(sim.created)) == len(sim.created)
    assert sim.created.count(("dropout-system", f"verify-{REF.uid}")) == 1
    assert len(sim.runs) == 1
    assert sim.run_states[-1] == "FINISHED"


@pytest.mark.parametrize("down", [False, True], ids=["at once", "after the next event"])
@pytest.mark.parametrize("cut", range(22))
def test_an_evicted_training_ends_the_same_wherever_the_operator_is_cut_off(cut: int, down: bool) -> None:
    sim = Simulation()
    events = [lambda: None, sim.pod_starts, sim.pod_is_evicted, lambda: sim.pod_ends(exit_code=75), sim.pods.clear,
              sim.garbage_is_collected, sim.time_passes, sim.pod_starts, lambda: sim.pod_ends(message=train_report()),
              lambda: sim.pod_starts(Stage.VERIFY), lambda: sim.pod_ends(Stage.VERIFY, message=passed_report())]
    play(sim, events, cut, down)
    for _ in range(3):
        for settle in (sim.garbage_is_collected, sim.time_passes, sim.pod_starts, lambda: sim.pod_ends(message=train_report()),
                       lambda: sim.pod_starts(Stage.VERIFY), lambda: sim.pod_ends(Stage.VERIFY, message=passed_report())):
            sim.reconcile()
            settle()
    sim.reconcile()

    assert sim.phase is Phase.SUCCEEDED
    assert [attempt.disruption is None for attempt in sim.state.attempts] == [False, True][-len(sim.state.attempts):]
    assert len(set(sim.created)) == len(sim.created)
    assert (len(sim.runs), sim.run_states[-1]) == (1, "FINISHED")


@pytest.mark.parametrize("down", [False, True], ids=["at once", "after the next event"])
@pytest.mark.parametrize("cut", range(20))
def test_a_verification_ends_the_same_wherever_the_operator_is_cut_off(cut: int, down: bool) -> None:
    sim = Simulation(again())
    events = [lambda: None, lambda: sim.pod_starts(Stage.VERIFY), sim.suspend, lambda: sim.suspend(False), sim.garbage_is_collected,
              lambda: sim.pod_starts(Stage.VERIFY), lambda: sim.pod_ends(Stage.VERIFY, message=passed_report())]
    play(sim, events, cut, down)
    for settle in 2 * (sim.garbage_is_collected, lambda: sim.pod_starts(Stage.VERIFY),
                       lambda: sim.pod_ends(Stage.VERIFY, message=passed_report())):
        sim.reconcile()
        settle()
    sim.reconcile()

    assert sim.phase is Phase.SUCCEEDED
    assert set(sim.created) == {("dropout-system", f"verify-{REF.uid}")}
    assert (sim.state.attempts, len(sim.runs), sim.run_states[-1]) == ([], 1, "FINISHED")


def test_three_writes_bring_a_job_to_running() -> None:
    sim = Simulation()
    for event in (lambda: None, sim.pod_appears, lambda: sim.time_passes(8), lambda: sim.time_passes(60), sim.pod_starts):
        event()
        sim.reconcile()

    assert sim.phase is Phase.RUNNING
    assert sim.writes <= 3


def test_an_uneventful_training_writes_nothing() -> None:
    sim = Simulation()
    sim.reconcile()
    sim.pod_starts()
    sim.reconcile()
    before = sim.writes
    for _ in range(20):
        sim.time_passes(5)
        sim.reconcile()

    assert sim.writes == before


def test_a_job_with_a_time_to_live_goes_after_it_and_not_before() -> None:
    sim = Simulation(wanted=spec(ttlSecondsAfterFinished={"failed": 100}))
    for event in (lambda: None, sim.pod_starts, lambda: sim.pod_ends(exit_code=70)):
        event()
        sim.reconcile()
    sim.time_passes(99)
    sim.reconcile()
    assert not sim.gone

    sim.time_passes(1)
    sim.reconcile()

    assert sim.gone


def test_a_job_that_failed_while_its_pod_could_not_start_leaves_no_pod() -> None:
    sim = Simulation(wanted=spec(startDeadlineSeconds=60))
    sim.reconcile()
    sim.time_passes(61)
    sim.reconcile()

    assert sim.phase is Phase.FAILED
    assert [child.deleting for child in sim.jobs.values()] == [True]
