"""Builders of the objects that the operator creates. Pure: a world's facts in, a manifest out.

The verify Job is built from the platform's settings alone; of the user's template it takes the tolerations.
"""

from typing import Any

from dropout_api.names import (
    API_VERSION,
    CHECKPOINTS_PATH,
    GROUP,
    KIND,
    METRICS_PATH,
    METRICS_PORT,
    METRICS_PORT_NAME,
    RENDEZVOUS_PORT,
    Env,
    Label,
    Stage,
    Torchrun,
    trainer_username,
)
from dropout_api.pod import PodTemplate
from dropout_api.spec import CommandJobSpec, JobSpec, TrainingJobSpec
from dropout_api.status import RunStatus
from dropout_api.task import Attempt, CommandTask, JobRef, RunRef, TrainTask, VerifyTask
from dropout_operator.identities import trainer_password
from dropout_operator.objects import Object
from dropout_operator.settings import Settings

UID = 65532
SAFE_CONTAINER = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
SAFE_POD = {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID, "seccompProfile": {"type": "RuntimeDefault"}}
DISRUPTED = {"rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}
"""Changes no Job's end, since a training pod is never tried again within its Job. It makes the Job controller record in the Job that
the pod was disrupted, which the pod itself may be gone too soon to tell; and count a pod as failed only once its processes have ended."""
GRACE_SECONDS = 30
CHECKPOINT_GRACE_SECONDS = 60
"""From SIGTERM to SIGKILL; writing a checkpoint is in it."""
CHECKPOINTS_VOLUME = "dropout-checkpoints"
SIGNING_MOUNT = "/signing"
SIGNING_FILES = {Env.SIGNING_KEY: ("signing-key.pem", "key.pem"), Env.VERIFYING_KEY: ("verifying-key.pem", "verify.pem")}
"""For each variable the key in the Secret and the file that it becomes. `verify.pem` holds public keys or certificates."""
VERIFY_RETRIES = 5
VERIFY_DEADLINE = 3600
VERIFY_TTL = 3600


def train_job_name(job: JobRef, attempt: int) -> str:
    return f"{job.name}-{attempt}"


def verify_job_name(job: JobRef) -> str:
    return f"verify-{job.uid}"


def tracking_secret_name(job: JobRef) -> str:
    """Holds part of the UID, so that a job of the same name made later has a Secret of its own."""
    return f"{job.name}-{job.uid[:8]}-tracking"


def service_name(job: JobRef) -> str:
    """A Service's name may begin with a letter only, and a job's with a digit."""
    return f"train-{job.uid}"


def checkpoints(job: JobRef, spec: JobSpec) -> str | None:
    """URI of the folder for a job's checkpoints. The UID keeps apart jobs that share a place, and those of one name made later."""
    if spec.checkpoint is None:
        return None
    place = f"file://{CHECKPOINTS_PATH}" if spec.checkpoint.uri is None else spec.checkpoint.uri.rstrip("/")
    return f"{place}/{job.uid}"


def labels(job: JobRef, stage: Stage, attempt: int) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": "dropout-operator", Label.UID: job.uid, Label.NAMESPACE: job.namespace, Label.NAME: job.name,
        Label.STAGE: stage, Label.ATTEMPT: str(attempt),
    }


def owner(job: JobRef) -> Object:
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}", "kind": KIND, "name": job.name, "uid": job.uid, "controller": True,
        "blockOwnerDeletion": True,
    }


def tracking_secret(job: JobRef, settings: Settings) -> Object:
    return {
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": tracking_secret_name(job), "namespace": job.namespace, "ownerReferences": [owner(job)],
            "labels": {"app.kubernetes.io/managed-by": "dropout-operator", Label.UID: job.uid},
        },
        "stringData": {
            "username": trainer_username(job.namespace), "password": trainer_password(settings.trainer_key, job.namespace),
        },
    }


def service(job: JobRef) -> Object:
    """Headless: gives each pod of an attempt a name in DNS, before it is ready, because they wait for each other."""
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": service_name(job), "namespace": job.namespace, "ownerReferences": [owner(job)],
            "labels": {"app.kubernetes.io/managed-by": "dropout-operator", Label.UID: job.uid},
        },
        "spec": {
            "clusterIP": "None", "publishNotReadyAddresses": True, "selector": {Label.UID: job.uid, Label.STAGE: Stage.TRAIN},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def train_job(
    job: JobRef, spec: JobSpec, run: RunStatus, attempt: int, deadline: int | None, settings: Settings, weights: RunRef | None = None,
) -> Object:
    """The Job of one attempt: a pod for each node, never restarted in place; all end when one fails. `weights` is the run whose candidate
    it starts from."""
    image = spec.image or settings.trainer_image
    own = RunRef(id=run.id, experiment_id=run.experiment_id)
    task = _task(spec, job=job, attempt=attempt, run=own, checkpoints=checkpoints(job, spec), image=image, weights=weights)
    template, marks = spec.pod_template, labels(job, Stage.TRAIN, attempt)
    environment = [variable.to_wire() for variable in template.env]
    environment += _environment(task.to_json(), settings, tracking_secret_name(job) if settings.mlflow_auth else None)
    container = {
        "name": Stage.TRAIN, "image": image,
        "imagePullPolicy": spec.image_pull_policy or settings.image_pull_policy, "command": ["dropout", "train"], "env": environment,
        "ports": [{"name": METRICS_PORT_NAME, "containerPort": METRICS_PORT}],
        "resources": _resources(spec, settings), "volumeMounts": _mounts(spec), **_ending(),
    }
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "enableServiceLinks": False, "securityContext": SAFE_POD,
        "containers": [container], "volumes": _volumes(spec), **_scheduling(template),
        "terminationGracePeriodSeconds": CHECKPOINT_GRACE_SECONDS if spec.checkpoint else GRACE_SECONDS,
        "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets],
    }
    if spec.checkpoint and spec.checkpoint.volume_claim:  # a volume of many checkpoints need not change hands at each attempt
        pod["securityContext"] = SAFE_POD | {"fsGroupChangePolicy": "OnRootMismatch"}
    if template.service_account_name:
        pod["serviceAccountName"] = template.service_account_name
    scrape = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": METRICS_PATH}
    result = _job(train_job_name(job, attempt), job.namespace, marks, pod, {**scrape, **template.annotations}, template.labels)
    result["metadata"]["ownerReferences"] = [owner(job)]
    result["spec"] |= {"backoffLimit": 0, "podFailurePolicy": DISRUPTED}
    if spec.nodes > 1:
        _spread(result, job, spec.nodes)
    if deadline is not None:
        result["spec"]["activeDeadlineSeconds"] = deadline
    return result


def _task(spec: JobSpec, **fields: Any) -> Attempt:
    if spec.command is None:
        return TrainTask(spec=TrainingJobSpec.model_validate(spec.to_wire()), **fields)
    del fields["weights"]
    return CommandTask(spec=CommandJobSpec.model_validate(spec.to_wire()), **fields)


def _spread(body: Object, job: JobRef, nodes: int) -> None:
    """Makes a Job one of so many numbered pods, each of which knows where rank 0 is. A later attempt's rank 0 has another name, so that
    no two attempts ever meet."""
    body["spec"] |= {"parallelism": nodes, "completions": nodes, "completionMode": "Indexed"}
    pod = body["spec"]["template"]["spec"]
    pod["subdomain"] = service_name(job)
    first = f"{body['metadata']['name']}-0.{service_name(job)}"
    pod["containers"][0]["env"] += [
        {"name": Torchrun.MASTER_ADDR, "value": first}, {"name": Torchrun.MASTER_PORT, "value": str(RENDEZVOUS_PORT)},
    ]


def verify_job(task: VerifyTask, settings: Settings) -> Object:
    """The Job that judges and registers, in the operator's namespace; a pod that could not judge is tried again."""
    container = {
        "name": Stage.VERIFY, "image": settings.verifier_image, "imagePullPolicy": settings.image_pull_policy,
        "command": ["dropout", "verify"],
        "env": _environment(task.to_json(), settings, settings.verifier_secret), "resources": settings.verify_resources,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}], **_ending(),  # noqa: S108 - the pod's own scratch volume
    }
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "enableServiceLinks": False, "securityContext": SAFE_POD,
        "serviceAccountName": settings.verifier_service_account, "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}], "tolerations": [item.to_wire() for item in task.spec.pod_template.tolerations],
    }
    if settings.signing_secret:
        _let_sign(pod, settings.signing_secret)
    result = _job(verify_job_name(task.job), settings.namespace, labels(task.job, Stage.VERIFY, 1), pod, {}, {})
    result["spec"] |= {
        "backoffLimit": VERIFY_RETRIES, "activeDeadlineSeconds": VERIFY_DEADLINE, "ttlSecondsAfterFinished": VERIFY_TTL,
    }
    return result


def _let_sign(pod: Object, secret: str) -> None:
    """Gives the pod's container the platform's key. Of all pods only a verifier's has it."""
    (container,) = pod["containers"]
    container["env"] += [{"name": name, "value": f"{SIGNING_MOUNT}/{file}"} for name, (_, file) in SIGNING_FILES.items()]
    container["volumeMounts"] += [{"name": "signing", "mountPath": SIGNING_MOUNT, "readOnly": True}]
    items = [{"key": key, "path": file} for key, file in SIGNING_FILES.values()]
    pod["volumes"] += [{"name": "signing", "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}]


def _job(name: str, namespace: str, marks: dict[str, str], pod: Object, annotations: dict[str, str], extra: dict[str, str]) -> Object:
    metadata = {"labels": {**extra, **marks}, "annotations": {"sidecar.istio.io/inject": "false", **annotations}}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace, "labels": marks},
        "spec": {"parallelism": 1, "completions": 1, "template": {"metadata": metadata, "spec": pod}},
    }


def _ending() -> Object:
    return {"terminationMessagePolicy": "FallbackToLogsOnError", "securityContext": SAFE_CONTAINER}


def _environment(task: str, settings: Settings, secret: str | None) -> list[Object]:
    """Ours come last: of two variables of one name the kubelet takes the later."""
    result: list[Object] = [
        {"name": Env.TASK, "value": task}, {"name": Env.TRACKING_URI, "value": settings.mlflow_uri}, {"name": "HOME", "value": "/tmp"},  # noqa: S108
    ]
    if secret:
        for name, key in ((Env.TRACKING_USERNAME, "username"), (Env.TRACKING_PASSWORD, "password")):
            result.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return result


def _resources(spec: JobSpec, settings: Settings) -> Object:
    """The job's own requests and limits over the platform's; a default request never exceeds the job's limit."""
    own: dict[str, Any] = spec.resources_per_node.to_wire()
    limits = settings.train_resources.get("limits", {}) | own.get("limits", {})
    defaults = {name: value for name, value in settings.train_resources.get("requests", {}).items() if name not in own.get("limits", {})}
    return {"requests": defaults | own.get("requests", {}), "limits": limits}


def _mounts(spec: JobSpec) -> list[Object]:
    template = spec.pod_template
    mounts = [mount.to_wire() for mount in template.volume_mounts]
    mounts.append({"name": "dropout-tmp", "mountPath": "/tmp"})  # noqa: S108 - the pod's own scratch volume
    if template.shared_memory is not None:
        mounts.append({"name": "dropout-shm", "mountPath": "/dev/shm"})  # noqa: S108
    if spec.checkpoint and spec.checkpoint.volume_claim:
        mounts.append({"name": CHECKPOINTS_VOLUME, "mountPath": CHECKPOINTS_PATH})
    return mounts


def _volumes(spec: JobSpec) -> list[Object]:
    template = spec.pod_template
    volumes = [volume.to_wire() for volume in template.volumes]
    volumes.append({"name": "dropout-tmp", "emptyDir": {}})
    if template.shared_memory is not None:
        volumes.append({"name": "dropout-shm", "emptyDir": {"medium": "Memory", "sizeLimit": template.shared_memory}})
    if spec.checkpoint and spec.checkpoint.volume_claim:
        volumes.append({"name": CHECKPOINTS_VOLUME, "persistentVolumeClaim": {"claimName": spec.checkpoint.volume_claim}})
    return volumes


def _scheduling(template: PodTemplate) -> Object:
    result: Object = {"nodeSelector": template.node_selector, "tolerations": [item.to_wire() for item in template.tolerations]}
    if template.affinity is not None:
        result["affinity"] = template.affinity.to_wire()
    if template.priority_class_name is not None:
        result["priorityClassName"] = template.priority_class_name
    return result
