"""From the end of training to the verdict."""

from dropout_api.names import Condition, ExitCode
from dropout_api.report import TrainReport, VerifyReport, parse
from dropout_api.status import ArtifactStatus, Failure, GateStatus, JobStatus, ModelStatus, Phase, Progress
from dropout_api.task import RunRef, VerifyTask
from dropout_operator import diagnosis, manifests
from dropout_operator.actions import Action, CreateJob, DeleteJob
from dropout_operator.planning.common import LOOK_AGAIN_SECONDS, Plan, about_tracking, end, event, fail, write
from dropout_operator.statuses import denied, readable, update, with_attempt, with_condition
from dropout_operator.world import JobView, World


def trained(world: World, job: JobView) -> Plan:
    """Training is over and said so by its exit code; what its report adds are numbers for people."""
    status = world.job.status
    pod = world.lead_of(job)
    final = pod.terminated if pod else None
    began = (pod.started if pod else None) or status.attempts[-1].start_time
    over = final.finished if final and final.finished else world.now
    status = with_attempt(status, reason="Completed", disruption=None, end_time=over, start_time=began)
    if pod is not None:
        status = update(status, devices=pod.devices, image_id=pod.image_id or status.image_id)
    report = parse(TrainReport, final.message) if final else None
    told = (report.message or "training ended") if report else "the training pod left no report that can be read"
    if report is not None:
        metrics = readable(report.metrics)
        progress = Progress(epoch=report.epoch, epochs=report.epochs, percent=100, metrics=metrics, update_time=world.now)
        status = update(status, progress=progress)
    status = update(status, phase=Phase.VERIFYING, message="the verifier checks the exported model")
    status = with_condition(world, status, Condition.TRAINED, True, "Completed", told)
    if denied(status, Condition.TRACKING_HEALTHY) is not None:  # who has handed over a candidate has reached MLflow
        status = with_condition(world, status, Condition.TRACKING_HEALTHY, True, "Writes", "")
    written = write(world, status, *about_tracking(world, status), event(world, "Trained", told))
    return Plan((*written, create_verifier(world, status)), LOOK_AGAIN_SECONDS)


def create_verifier(world: World, status: JobStatus, source: RunRef | None = None) -> Action:
    """The verify Job for the candidate of the job's own run, or of `source`."""
    assert world.job.spec is not None
    assert status.run is not None
    run = RunRef(id=status.run.id, experiment_id=status.run.experiment_id)
    task = VerifyTask(job=world.job.ref, run=run, spec=world.job.spec, source=source, image_id=status.image_id)
    return CreateJob(manifests.verify_job(task, world.settings))


def verify(world: World) -> Plan:
    """Follows the verify Job, and makes it where there is none."""
    job = world.child(world.settings.namespace, manifests.verify_job_name(world.job.ref))
    if job is None:
        return Plan((create_verifier(world, world.job.status),), LOOK_AGAIN_SECONDS)
    if job.failed:
        return fail(world, diagnosis.verify_failure(job, world.pods_of(job)))
    if not job.complete:
        return Plan((), world.settings.poll_seconds)
    ends = [pod.terminated for pod in world.pods_of(job) if pod.terminated and pod.terminated.exit_code == ExitCode.OK]
    report = next((report for final in ends if (report := parse(VerifyReport, final.message))), None)
    if report is None and ends:
        message = "the verifier left no verdict that can be read; is its image of the operator's version? Nothing was registered"
        return fail(world, Failure(reason="VerificationFailed", message=message))
    if report is None:  # the pod was collected before its verdict was read: verifying again is harmless
        again = () if job.deleting else (DeleteJob(world.settings.namespace, job.name, job.uid),)
        return Plan(again, LOOK_AGAIN_SECONDS)
    return _registered(world, report) if report.verdict == "Passed" else _rejected(world, report)


def _judged(world: World, report: VerifyReport, passed: bool) -> JobStatus:
    gate = GateStatus(verdict=report.verdict, failed=report.failed, report=report.report_uri)
    artifact = ArtifactStatus(sha256=report.sha256) if report.sha256 else None
    status = update(world.job.status, gate=gate, artifact=artifact, completion_time=world.now, message=report.message or None)
    if status.progress is not None and report.metrics:
        status = update(status, progress=status.progress.model_copy(update={"metrics": status.progress.metrics | readable(report.metrics)}))
    return with_condition(world, status, Condition.GATE_PASSED, passed, report.verdict, report.message)


def _registered(world: World, report: VerifyReport) -> Plan:
    if not (report.model_name and report.model_version):
        message = "the verifier passed the model but named no version; see the verify Job's log"
        return fail(world, Failure(reason="VerificationFailed", message=message))
    uri = report.model_uri or f"models:/{report.model_name}/{report.model_version}"
    model = ModelStatus(name=report.model_name, version=report.model_version, uri=uri)
    status = update(_judged(world, report, True), phase=Phase.SUCCEEDED, model=model, message=f"registered {uri}")
    status = with_condition(world, status, Condition.REGISTERED, True, "Registered", uri)
    status = with_condition(world, status, Condition.COMPLETE, True, "Registered", uri)
    return end(world, status, event(world, "ModelRegistered", f"{model.name} version {model.version} passed the gate"))


def _rejected(world: World, report: VerifyReport) -> Plan:
    status = update(_judged(world, report, False), phase=Phase.REJECTED)
    status = with_condition(world, status, Condition.REGISTERED, False, "GateFailed", "")
    status = with_condition(world, status, Condition.FAILED, True, "Rejected", report.message)
    return end(world, status, event(world, "Rejected", report.message, warning=True))
