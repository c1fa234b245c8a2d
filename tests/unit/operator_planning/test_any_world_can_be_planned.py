"""Totality: whatever a pod says and however children and status fit together, there is a plan and it is sound."""

from dataclasses import replace
from datetime import timedelta

from dropout_testing.worlds import NOW, REF, RUN, SETTINGS, SOURCE, again, conditions, spec, status, training_job, verify_job, world
from hypothesis import given, settings
from hypothesis import strategies as st

from dropout_api.report import ProgressSample
from dropout_api.status import JobStatus, Phase
from dropout_operator.actions import CreateJob, DeleteJob, WriteStatus
from dropout_operator.manifests import verify_job_name
from dropout_operator.planning import plan
from dropout_operator.world import Blocked, Disruption, JobView, PodView, SourceRun, Terminated, World

times = st.integers(-100_000, 100_000).map(lambda seconds: NOW + timedelta(seconds=seconds))
REPORTS = ['{"stage":"verify","verdict":"Passed"}', '{"stage":"train","reason":"Trained"}', "{", "\x00" * 9]
texts = st.text(max_size=40) | st.sampled_from(REPORTS)
reasons = st.sampled_from(["", "OOMKilled", "Error", "Evicted", "ErrImagePull", "DeadlineExceeded", "BackoffLimitExceeded", "Completed",
                           "PodFailurePolicy", "Suspended"])
namespaces = st.sampled_from([REF.namespace, SETTINGS.namespace, "another"])
names = st.sampled_from(["digits-1", "digits-2", verify_job_name(REF)])
owners = st.sampled_from([None, REF.uid, "stranger", "child"])
jobs = st.builds(
    JobView, namespace=namespaces, name=names, uid=st.sampled_from(["child", "child-2"]), owner_uid=owners,
    stage=st.sampled_from(["train", "verify", ""]), created=times, deleting=st.booleans(), suspended=st.booleans(), complete=st.booleans(),
    failed=st.booleans(), reason=reasons, message=texts,
)
disruptions = st.builds(Disruption, reason=reasons, message=texts, since=st.none() | times)
codes = st.integers(-1, 300) | st.sampled_from([69, 74, 75, 137])
ends = st.builds(Terminated, exit_code=codes, reason=reasons, message=texts, finished=st.none() | times)
pods = st.builds(
    PodView, namespace=namespaces, name=st.just("pod"), owner_uid=st.sampled_from([None, "child", "child-2", REF.uid]), created=times,
    deleted=st.none() | times, disruption=st.none() | disruptions,
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]), reason=reasons, message=texts,
    ip=st.none() | st.just("10.0.0.1"), host_network=st.booleans(), scheduled=st.none() | times, unschedulable=st.none() | texts,
    started=st.none() | times, waiting_reason=reasons, waiting_message=texts, terminated=st.none() | ends, image_id=texts,
    devices=st.dictionaries(st.just("nvidia.com/gpu"), st.just("1")),
)
samples = st.builds(
    ProgressSample, attempt=st.integers(1, 3), epoch=st.integers(0, 9), epochs=st.integers(1, 9), tracking_healthy=st.booleans(),
    eta_seconds=st.none() | st.integers(0, 99), metrics=st.dictionaries(st.just("val_loss"), st.floats(-1e9, 1e9)),
)
sources = st.builds(
    SourceRun, id=st.just(SOURCE.id), experiment_id=st.just("8"), namespace=st.sampled_from([REF.namespace, "another", ""]),
    experiment=st.sampled_from([SOURCE.experiment, "another.digits", "team:verified", "team", "team-b.digits", ""]),
    active=st.booleans(), verified=st.sampled_from(["", "c" * 32]), image_id=st.none() | texts,
)


@st.composite
def states(draw: st.DrawFn, trains: bool) -> JobStatus:
    """Any status that holds together: who has trained has a run, only the latest attempt may be open, who does not train has none."""
    kinds = draw(st.sets(st.sampled_from(["Trained", "RunClosed", "Complete", "Failed", "TrackingHealthy"])))
    attempts = draw(st.integers(1 if "Trained" in kinds else 0, 2)) if trains else 0
    reason = st.sampled_from(["Suspended", "Killed", "EvictionByEvictionAPI"])
    listed = [{"number": n, "job": f"{REF.name}-{n}", "endTime": NOW.isoformat(), "reason": draw(reason)} for n in range(1, attempts + 1)]
    if listed and draw(st.booleans()):
        del listed[-1]["endTime"]
        listed[-1] |= {"reason": None, "disruption": draw(st.sampled_from([None, "EvictionByEvictionAPI", "PodDeleted"]))}
    run = {"run": RUN.to_wire()} if attempts or "Trained" in kinds or draw(st.booleans()) else {}
    phase = draw(st.sampled_from(sorted(Phase)))
    return status(phase, attempts=listed, conditions=conditions(**dict.fromkeys(kinds, True)), **run)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    suspended, trains = draw(st.booleans()), draw(st.booleans())
    deadline = draw(st.none() | st.integers(1, 9999))
    model = {"factory": "mlp", **draw(st.sampled_from([{}, {"weights": {"run": SOURCE.id}}]))}
    checkpoint = draw(st.sampled_from([{}, {"checkpoint": {"volumeClaim": "a"}}]))
    restart = {"maxRestarts": draw(st.integers(0, 2))}
    training = spec(suspend=suspended, activeDeadlineSeconds=deadline, model=model, restart=restart, **checkpoint)
    job = training_job(
        draw(states(trains)), wanted=training if trains else again(suspend=suspended),
        deleting=draw(st.booleans()), problem=draw(st.none() | st.just("spec.seed: wrong")), generation=draw(st.integers(1, 3)),
    )
    return world(
        job=job, now=draw(times), children=tuple(draw(st.lists(jobs, max_size=3))), pods=tuple(draw(st.lists(pods, max_size=3))),
        progress=draw(st.none() | samples), tracking_problem=draw(st.none() | texts),
        blocked=draw(st.none() | st.builds(Blocked, st.just("CreateFailed"), texts, st.booleans())),
        run=job.status.run or draw(st.none() | st.just(RUN)), source=draw(st.none() | sources),
        weights=draw(st.none() | sources),
    )


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_there_is_a_plan_for_any_world(seen: World) -> None:
    decided = plan(seen)

    assert decided.again is None or decided.again > 0
    before = seen.job.status
    for action in decided.actions:
        if isinstance(action, WriteStatus):
            after = action.status
            assert JobStatus.model_validate(after.to_wire()) == after
            assert before.run is None or after.run == before.run
            assert [attempt.number for attempt in after.attempts][:len(before.attempts)] == [attempt.number for attempt in before.attempts]
            assert not before.phase.terminal or after.phase is before.phase
            assert sum(attempt.end_time is None for attempt in after.attempts) <= 1
        if isinstance(action, DeleteJob):
            owned = {child.uid for child in seen.children if child.owner_uid == REF.uid}
            assert action.uid in owned or action.name == verify_job_name(REF)
        if isinstance(action, CreateJob):
            assert action.body["metadata"]["namespace"] in (REF.namespace, SETTINGS.namespace)
            assert trains(seen) or action.body["metadata"]["name"] == verify_job_name(REF)


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_no_attempt_begins_while_something_of_another_is_left(seen: World) -> None:
    before = [attempt.number for attempt in seen.job.status.attempts]
    begun = [action.status for action in plan(seen).actions
             if isinstance(action, WriteStatus) and len(action.status.attempts) > len(before)]

    assert not begun or not (seen.training() or (before and seen.lingering()))


def trains(seen: World) -> bool:
    return seen.job.spec is None or seen.job.spec.source is None


@settings(max_examples=200, deadline=None)
@given(worlds(), sources)
def test_no_candidate_but_one_of_the_jobs_own_namespace_is_ever_given_to_a_verifier(seen: World, source: SourceRun) -> None:
    seen = replace(seen, source=source)
    made = [action.body for action in plan(seen).actions if isinstance(action, CreateJob)]

    allowed = source.experiment == SOURCE.experiment and source.namespace == REF.namespace and not source.active and not source.verified
    assert not made or trains(seen) or allowed


@settings(max_examples=200, deadline=None)
@given(worlds(), sources)
def test_no_weights_but_those_of_the_jobs_own_namespace_are_ever_given_to_a_trainer(seen: World, source: SourceRun) -> None:
    made = [action.body for action in plan(replace(seen, weights=source)).actions if isinstance(action, CreateJob)]
    trainers = [body for body in made if body["metadata"]["name"] != verify_job_name(REF)]

    allowed = source.experiment == SOURCE.experiment and source.namespace == REF.namespace and not source.active and not source.verified
    wanted = seen.job.spec is not None and seen.job.spec.model is not None and seen.job.spec.model.weights is not None
    assert not trainers or not wanted or allowed


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_a_version_comes_from_a_verify_job_in_our_namespace_or_not_at_all(seen: World) -> None:
    named = [action.status.model for action in plan(seen).actions if isinstance(action, WriteStatus) and action.status.model]

    ours = [child for child in seen.children if (child.namespace, child.name) == (SETTINGS.namespace, verify_job().name)]
    assert not named or ours
