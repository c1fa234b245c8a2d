"""`spec.from`: an existing candidate is verified again. Nothing is trained, so a verify Job is all that such a job ever has."""

from dropout_api.names import Condition
from dropout_api.status import Phase
from dropout_api.task import RunRef, experiment_name
from dropout_operator import manifests
from dropout_operator.actions import DeleteJob, EnsureRun, FindSource, MarkRun
from dropout_operator.planning import candidates
from dropout_operator.planning.attempts import with_run
from dropout_operator.planning.common import LOOK_AGAIN_SECONDS, Plan, event, fail, wait_for_tracking, write
from dropout_operator.planning.verifying import create_verifier, verify
from dropout_operator.statuses import holds, update, with_condition
from dropout_operator.world import JobView, SourceRun, World


def reuse(world: World, run_id: str) -> Plan:
    """Follows the verify Job; where there is none, looks up the run `run_id` and makes it.

    The run is looked up before each making, never remembered: so no status that somebody wrote can stand for that look.
    """
    job, wanted = world.job, world.job.spec
    assert wanted is not None
    verifier = world.child(world.settings.namespace, manifests.verify_job_name(job.ref))
    if wanted.suspend and (verifier is None or verifier.deleting or not verifier.finished):
        return _suspend(world, verifier)
    if verifier is not None:
        return _follow(world, verifier)
    if world.tracking_problem is not None:
        return wait_for_tracking(world)
    if world.source is None:
        return Plan((FindSource(run_id),))
    refusal = candidates.refusal(job.ref, world.source, "spec.from.run", candidates.unknown_run(job.ref, run_id))
    if refusal is not None:
        return fail(world, refusal)
    if world.run is None:
        return Plan((EnsureRun(experiment_name(job.ref, wanted), run_id),))
    return _begin(world, world.source)


def _begin(world: World, source: SourceRun) -> Plan:
    """Trained holds, by another job's training: from here on this one is as any other that waits for its verdict."""
    assert world.run is not None
    before, told = world.job.status, f"the candidate of run {source.id} is verified again; nothing is trained"
    candidate = RunRef(id=source.id, experiment_id=source.experiment_id)
    if before.phase is Phase.VERIFYING and holds(before, Condition.TRACKING_HEALTHY):  # the verifier is gone, or was not made
        return Plan((create_verifier(world, before, candidate),), LOOK_AGAIN_SECONDS)
    status = update(
        with_run(world, world.run), phase=Phase.VERIFYING, message=told, start_time=before.start_time or world.now,
        image_id=source.image_id or before.image_id,
    )
    status = with_condition(world, status, Condition.TRAINED, True, "Reused", told)
    written = write(world, status, event(world, "RunCreated", f"MLflow run {world.run.id}"), event(world, "Reused", told))
    mark = (MarkRun(world.run.id, "RUNNING"),) if written else ()
    return Plan((*written, create_verifier(world, status, candidate), *mark), LOOK_AGAIN_SECONDS)


def _follow(world: World, verifier: JobView) -> Plan:
    resumed = world.job.status.phase is not Phase.VERIFYING and not (verifier.deleting or verifier.finished)
    if resumed:  # before the verifier was ended
        status = update(world.job.status, phase=Phase.VERIFYING, message="the verifier checks the exported model")
        return Plan(write(world, status), LOOK_AGAIN_SECONDS)
    return verify(world)


def _suspend(world: World, verifier: JobView | None) -> Plan:
    """No verifier runs. One that has ended has given its verdict, which counts."""
    before = world.job.status
    status = update(before, phase=Phase.SUSPENDED, message="suspended; set spec.suspend to false to verify the candidate")
    written = write(world, status, event(world, "Suspended", "no verifier runs"))
    ends = (DeleteJob(verifier.namespace, verifier.name, verifier.uid),) if verifier and not verifier.deleting else ()
    mark = (MarkRun(before.run.id, "SCHEDULED"),) if written and before.run else ()
    return Plan((*written, *ends, *mark), LOOK_AGAIN_SECONDS if ends else None)
