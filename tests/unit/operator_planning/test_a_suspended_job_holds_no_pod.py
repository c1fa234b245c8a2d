"""Suspend ends the pod and keeps the run; resume waits until nothing of the old attempt is left."""

from dropout_testing.worlds import Simulation, kinds, spec, told, train_report

from dropout_api.status import Phase
from dropout_operator.actions import DeleteJob


def running() -> Simulation:
    sim = Simulation()
    sim.reconcile()
    sim.pod_starts()
    sim.reconcile()
    return sim


def test_a_job_made_suspended_starts_nothing_and_makes_no_run() -> None:
    sim = Simulation(wanted=spec(suspend=True))
    sim.reconcile()

    assert sim.phase is Phase.SUSPENDED
    assert (sim.created, sim.runs) == ([], [])


def test_a_job_made_suspended_starts_when_it_is_resumed() -> None:
    sim = Simulation(wanted=spec(suspend=True))
    sim.reconcile()
    sim.suspend(False)
    sim.reconcile()

    assert sim.phase is Phase.STARTING
    assert sim.state.attempts[-1].number == 1


def test_suspending_ends_the_attempt_and_its_job() -> None:
    sim = running()
    sim.suspend()

    actions = sim.reconcile()

    assert kinds(actions) == ["EmitEvent", "WriteStatus", "DeleteJob", "MarkRun"]
    assert sim.phase is Phase.SUSPENDED
    assert sim.state.attempts[-1].reason == "Suspended"
    assert sim.run_states[-1] == "SCHEDULED"
    (deleted,) = [action for action in actions if isinstance(action, DeleteJob)]
    assert deleted.name == "digits-1"


def test_resuming_waits_until_the_old_job_is_gone() -> None:
    sim = running()
    sim.suspend()
    sim.reconcile()
    sim.suspend(False)

    assert sim.reconcile() == []

    sim.garbage_is_collected()
    actions = sim.reconcile()

    assert sim.created[-1] == ("team", "digits-2")
    assert told(actions) == ["Restarted"]
    assert (sim.state.restarts, [attempt.number for attempt in sim.state.attempts]) == (1, [1, 2])
    assert len(sim.runs) == 1


def test_resuming_before_the_operator_saw_the_suspension_changes_nothing() -> None:
    sim = running()
    sim.suspend()
    sim.suspend(False)

    assert sim.reconcile() == []
    assert sim.phase is Phase.RUNNING


def test_suspending_stays_suspended_through_the_deletion() -> None:
    sim = running()
    sim.suspend()
    sim.reconcile()
    sim.garbage_is_collected()

    assert sim.reconcile() == []
    assert sim.phase is Phase.SUSPENDED


def test_a_trained_model_is_verified_even_when_the_job_is_suspended() -> None:
    sim = running()
    sim.pod_ends(message=train_report())
    sim.reconcile()
    sim.suspend()
    sim.reconcile()

    assert sim.phase is Phase.VERIFYING
