"""Why a pod failed or does not start, in words that say what to do. Pure."""

import signal
from dataclasses import dataclass
from datetime import datetime

from dropout_api.names import ExitCode
from dropout_api.report import MAX_MESSAGE, StageError, parse
from dropout_api.status import Failure
from dropout_operator.world import Disruption, JobView, PodView, Terminated

SIGNALED = 128
"""Above it an exit code is this plus a signal's number."""
IMAGE_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
START_PROBLEMS = (*IMAGE_PROBLEMS, "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
STARTING = "the training pod is starting"
BY_THE_NODE = ("Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated")
"""Reasons of a pod that its node has ended. Without a condition DisruptionTarget the pod itself may have caused it, as by a full volume."""
MAY_PASS = {
    ExitCode.TRACKING_UNAVAILABLE: ("TrackingUnavailable", "MLflow could not be reached"),
    ExitCode.CHECKPOINTS_UNAVAILABLE: ("CheckpointsUnavailable", "the store of its checkpoints could not be reached"),
    ExitCode.PEER_LOST: ("PeerLost", "another process of the training went away"),
    ExitCode.PREEMPTED: ("Preempted", "the training says that it was told to end and saved a checkpoint"),
}
"""Exit codes after which trying again may help. The reason is ours: what a pod calls its end must not decide whether a restart counts."""
CREATE_AGAIN = "create the job again"


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, and whether another one may end otherwise."""

    reason: str
    message: str
    remedy: str = ""
    """What to do where no attempt follows."""
    passing: bool = False
    """Whether trying again may help. A wrong spec, data or model fails the same way each time, and so does too little memory."""
    disruption: str | None = None
    """The reason where Kubernetes ended the pod itself, or someone deleted it."""
    pod: PodView | None = None

    def failure(self, limit: str = "") -> Failure:
        """As the end of the job. `limit` says why no attempt follows although one could help."""
        final = self.pod.terminated if self.pod else None
        told = "; ".join(part for part in (self.message, limit, self.remedy) if part)
        where = {"container": "train", "exit_code": final.exit_code} if final else {}
        return Failure(reason=self.reason, message=told, pod=self.pod.name if self.pod else None, **where)


def ending(job: JobView, pods: tuple[PodView, ...], seen: str | None) -> Ending:
    """What ended a failed Job; `seen` is the reason of a disruption that its pod showed while it lived."""
    if job.reason == "DeadlineExceeded":
        return Ending("DeadlineExceeded", "training took longer than spec.activeDeadlineSeconds", "raise it or train less")
    pod = _culprit(pods)
    found = disruption(job, pods) or _recorded(job, seen)
    if found is not None:
        return Ending(found.reason, found.message, CREATE_AGAIN, passing=True, disruption=found.reason, pod=pod)
    if pod is None:
        message = f"the training pod is gone and left no exit code ({job.reason}: {job.message})"
        return Ending("PodLost", message, f"it may have been deleted or its node lost; {CREATE_AGAIN}", passing=True)
    if pod.reason in BY_THE_NODE or pod.terminated is None:  # the kubelet may also refuse a pod before it starts
        said = pod.message or job.message or "the node ended the pod"
        return Ending(pod.reason or "PodFailed", said, CREATE_AGAIN, passing=True, pod=pod)
    return _process_ending(pod, pod.terminated)


def disruption(job: JobView, pods: tuple[PodView, ...]) -> Disruption | None:
    """That Kubernetes, or someone who is not the Job controller, ends the training from outside; None where nothing shows it.

    What came after the first pod's end did not cause it. The Job controller deletes the others then, so only of the first one is a
    deletion somebody else's; the condition it never sets.
    """
    if job.deleting or job.suspended or job.reason == "DeadlineExceeded":
        return None
    first = _failed(pods)[:1]
    end = finished(first[0]) if first else None
    for pod in pods:
        if pod.disruption is not None and not _over_before(end, pod.disruption.since):
            said = pod.disruption.message or pod.message or pod.disruption.reason
            return Disruption(pod.disruption.reason, f"Kubernetes ends the training pod {pod.name}: {said}", pod.disruption.since)
    for pod in first or pods:
        if pod.deleted is not None and not _over_before(end, pod.deleted) and (first or not job.reason):
            return Disruption("PodDeleted", f"someone has deleted the training pod {pod.name}", pod.deleted)
    return None


def _failed(pods: tuple[PodView, ...]) -> list[PodView]:
    """Those that have ended otherwise than well, the first one first."""
    over = [pod for pod in pods if pod.phase == "Failed" or (pod.terminated is not None and pod.terminated.exit_code != ExitCode.OK)]
    return sorted(over, key=lambda pod: (finished(pod) is None, finished(pod) or pod.created))


def _culprit(pods: tuple[PodView, ...]) -> PodView | None:
    """The pod whose end ended the attempt. Who only lost another may have ended in the same second."""
    failed = _failed(pods)
    bereft = [pod for pod in failed if pod.terminated is not None and pod.terminated.exit_code == ExitCode.PEER_LOST]
    return next(iter([pod for pod in failed if pod not in bereft] or bereft), None)


def _recorded(job: JobView, seen: str | None) -> Disruption | None:
    """A disruption that is known although the pod is gone or does not show it."""
    if seen is not None:
        return Disruption(seen, "Kubernetes ended the training pod" if seen != "PodDeleted" else "someone has deleted the training pod")
    if job.reason == "PodFailurePolicy":  # by `manifests.DISRUPTED`
        return Disruption("DisruptionTarget", f"Kubernetes ended the training pod: {job.message}")
    return None


def finished(pod: PodView) -> datetime | None:
    return pod.terminated.finished if pod.terminated else None


def _over_before(end: datetime | None, moment: datetime | None) -> bool:
    return end is not None and moment is not None and end < moment


def _process_ending(pod: PodView, end: Terminated) -> Ending:
    if end.reason == "OOMKilled":
        remedy = "raise resourcesPerNode.limits.memory or lower training.batchSize"
        return Ending("OOMKilled", "the container went over its memory limit", remedy, pod=pod)
    report = parse(StageError, end.message)
    report = report if report is not None and report.stage == "train" else None
    if end.exit_code in MAY_PASS:
        reason, message = MAY_PASS[ExitCode(end.exit_code)]
        return Ending(reason, (report.message if report else "") or message, passing=True, pod=pod)
    name, logs = _signal(end.exit_code), f"see `kubectl logs {pod.name}`"
    if name is not None:
        message = f"the training process was ended by {name}, from outside or by a crash"
        return Ending("Killed", message, f"{logs} and the node's events", passing=True, pod=pod)
    if report is not None:
        return Ending(report.reason, report.message, pod=pod)
    last = end.message.strip()[-MAX_MESSAGE:]
    return Ending("Error", f"exit code {end.exit_code}", f"its last words: {last}" if last else logs, pod=pod)


def _signal(code: int) -> str | None:
    """Name of the signal that a process's exit code tells of."""
    try:
        return signal.Signals(code - SIGNALED).name if code > SIGNALED else None
    except ValueError:
        return None


def waiting_for(pod: PodView | None, job: JobView) -> tuple[str, str]:
    """Reason and message of a pod that does not run yet."""
    if pod is None:
        return "NoPod", f"no pod yet; `kubectl describe job {job.name}` tells why if it stays so (a quota, pod security, a service account)"
    if pod.unschedulable:
        return "Unschedulable", f"waiting for a node: {pod.unschedulable}"
    if pod.waiting_reason in IMAGE_PROBLEMS:
        said = pod.waiting_message or pod.waiting_reason
        return pod.waiting_reason, f"{said}; check the image's name, that the node can pull it, and spec.imagePullSecrets"
    return pod.waiting_reason or "Starting", pod.waiting_message or STARTING


def verify_failure(job: JobView, pods: tuple[PodView, ...]) -> Failure:
    """Why there is no verdict, after every retry."""
    pod = next((pod for pod in pods if pod.terminated is not None), None)
    words = ""
    if pod is not None and pod.terminated is not None:
        report = parse(StageError, pod.terminated.message)
        words = f"{report.reason}: {report.message}" if report else pod.terminated.message.strip()[-MAX_MESSAGE:]
    return Failure(
        reason="VerificationFailed", pod=pod.name if pod else None, container="verify",
        exit_code=pod.terminated.exit_code if pod and pod.terminated else None,
        message=f"the verifier could not reach a verdict ({job.reason}): {words or job.message}; nothing was registered",
    )
