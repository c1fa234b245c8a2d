"""Why a pod failed or does not start, in words that say what to do. Pure."""

from dropout_api.report import MAX_MESSAGE, StageError, parse
from dropout_api.status import Failure
from dropout_operator.world import JobView, PodView, Terminated

SIGNALS = {137: "SIGKILL", 139: "SIGSEGV", 134: "SIGABRT", 143: "SIGTERM", 130: "SIGINT"}
IMAGE_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
START_PROBLEMS = (*IMAGE_PROBLEMS, "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
STARTING = "the training pod is starting"


def training_failure(job: JobView, pods: tuple[PodView, ...]) -> Failure:
    """What ended a failed Job, from the pod that failed where there still is one."""
    if job.reason == "DeadlineExceeded":
        return Failure(reason="DeadlineExceeded", message="training took longer than spec.activeDeadlineSeconds; raise it or train less")
    pod = next((pod for pod in pods if pod.phase == "Failed" or pod.terminated is not None), None)
    if pod is None:
        return Failure(reason="PodLost", message=f"the training pod is gone and left no exit code ({job.reason}: {job.message}); "
                                                 "it may have been deleted or its node lost; create the job again")
    if pod.terminated is None:
        return Failure(reason=pod.reason or "PodFailed", message=pod.message or job.message, pod=pod.name)
    reason, message = _ending(pod, pod.terminated)
    return Failure(reason=reason, message=message, pod=pod.name, container="train", exit_code=pod.terminated.exit_code)


def _ending(pod: PodView, end: Terminated) -> tuple[str, str]:
    if pod.reason in ("Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated"):
        return pod.reason, f"{pod.message or 'the node ended the pod'}; create the job again"
    if end.reason == "OOMKilled":
        return "OOMKilled", "the container went over its memory limit; raise resourcesPerNode.limits.memory or lower training.batchSize"
    report = parse(StageError, end.message)
    if report is not None and report.stage == "train":
        return report.reason, report.message
    logs = f"see `kubectl logs {pod.name}`"
    signal = SIGNALS.get(end.exit_code)
    if signal is not None:
        return "Killed", f"the training process was ended by {signal}, from outside or by a crash; {logs} and the node's events"
    last = end.message.strip()[-MAX_MESSAGE:]
    return "Error", f"exit code {end.exit_code}; its last words: {last}" if last else f"exit code {end.exit_code}; {logs}"


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
