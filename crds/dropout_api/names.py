"""Every name that two programs must agree on: API group, labels, environment, metrics, tags, exit codes.

A test freezes these values, because a renamed metric or tag breaks dashboards and queries that this repository
does not see.
"""

from enum import IntEnum, StrEnum

GROUP = "training.dropout.dev"
API_VERSION = "v1alpha1"
KIND = "DropoutTrainingJob"
PLURAL = "dropouttrainingjobs"
SHORT_NAME = "dtj"


class Label(StrEnum):
    """Labels on children; the UID, not the name, identifies the job that a child belongs to."""

    UID = "training.dropout.dev/job-uid"
    NAMESPACE = "training.dropout.dev/job-namespace"
    NAME = "training.dropout.dev/job-name"
    STAGE = "training.dropout.dev/stage"
    ATTEMPT = "training.dropout.dev/attempt"


class Stage(StrEnum):
    """What a pod of ours does; also the name of its container."""

    TRAIN = "train"
    VERIFY = "verify"


class Env(StrEnum):
    """Environment of the pods; users may not set any name that starts with a reserved prefix."""

    TASK = "DROPOUT_TASK"
    TERMINATION_LOG = "DROPOUT_TERMINATION_LOG"
    TRACKING_URI = "MLFLOW_TRACKING_URI"
    TRACKING_USERNAME = "MLFLOW_TRACKING_USERNAME"
    TRACKING_PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - a name, not a password
    SIGNING_KEY = "DROPOUT_SIGNING_KEY"  # file with the verifier's private key, PEM
    VERIFYING_KEY = "DROPOUT_VERIFYING_KEY"  # file with the public keys or certificates that a signature may be checked with, PEM


CHECKPOINTS_PATH = "/checkpoints"
"""Where the training pod sees the volume of `spec.checkpoint.volumeClaim`."""
OWN_VOLUMES = ("dropout-tmp", "dropout-shm", "dropout-checkpoints")
"""Volumes that the platform itself adds to the training pod."""

RESERVED_ENV_PREFIXES = ("DROPOUT_", "MLFLOW_")

RENDEZVOUS_PORT = 29500
"""Where the processes of a distributed training find each other, on the pod of rank 0."""
METRICS_PORT = 8080
METRICS_PORT_NAME = "metrics"
METRICS_PATH = "/metrics"
PROGRESS_PATH = "/progress"


class Metric(StrEnum):
    """MLflow metric names; one point per epoch, `step` is the epoch counted from 1."""

    TRAIN_LOSS = "train_loss"  # in eval mode, on a sample of the training set as large as the validation set
    VAL_LOSS = "val_loss"
    VAL_GAP = "val_gap"  # val_loss - train_loss, both in eval mode
    VAL_ACCURACY = "val_accuracy"
    DROPOUT_LOSS = "train_loss_with_dropout"  # the loss that was minimised: training mode, mean over the epoch
    TEST_LOSS = "test_loss"
    TEST_ACCURACY = "test_accuracy"
    LEARNING_RATE = "learning_rate"  # of the epoch's last step
    EPOCH_SECONDS = "epoch_seconds"


class Torchrun(StrEnum):
    """Environment of each process of a training, as torchrun sets it (https://docs.pytorch.org/docs/stable/elastic/run.html)."""

    RANK = "RANK"
    LOCAL_RANK = "LOCAL_RANK"
    WORLD_SIZE = "WORLD_SIZE"
    LOCAL_WORLD_SIZE = "LOCAL_WORLD_SIZE"
    GROUP_RANK = "GROUP_RANK"  # of the node
    MASTER_ADDR = "MASTER_ADDR"
    MASTER_PORT = "MASTER_PORT"


NODE_RANK = "JOB_COMPLETION_INDEX"
"""Where the Job controller tells a pod of an Indexed Job its number."""


class Gauge(StrEnum):
    """Prometheus series. A trainer's carry no job labels (the scrape adds the pod); an operator's carry namespace and name."""

    TRAIN_LOSS = "dropout_train_loss"
    VAL_LOSS = "dropout_val_loss"
    VAL_GAP = "dropout_val_gap"
    EPOCH = "dropout_epoch"
    EPOCHS = "dropout_epochs"
    JOB_TRAIN_LOSS = "dropout_job_train_loss"
    JOB_VAL_LOSS = "dropout_job_val_loss"
    JOB_VAL_GAP = "dropout_job_val_gap"
    JOB_PROGRESS = "dropout_job_progress_ratio"
    JOB_INFO = "dropout_job_info"
    QUARANTINED_VERSIONS = "dropout_quarantined_versions"
    REGISTRY_WEBHOOK = "dropout_registry_webhook"


class Tag(StrEnum):
    """MLflow tags on runs and model versions."""

    CLUSTER = "dropout.cluster"
    UID = "dropout.uid"
    NAMESPACE = "dropout.namespace"
    NAME = "dropout.name"
    ATTEMPT = "dropout.attempt"
    PHASE = "dropout.phase"
    MESSAGE = "dropout.message"
    RUN_ID = "dropout.run_id"  # the job's own run
    FROM_RUN = "dropout.from_run"  # the run whose candidate was verified again, where that is not the job's own
    DIGEST = "dropout.sha256"  # of the exported eval program
    CODE_DIGEST = "dropout.code_sha256"  # of the code that serves it
    SEED = "dropout.seed"
    PLAN = "dropout.plan"
    VERDICT = "dropout.verdict"
    GATE_VERSION = "dropout.gate_version"
    STATEMENT_DIGEST = "dropout.statement_sha256"  # of the statement among a version's files
    QUARANTINED = "dropout.quarantined"  # why a version must not be served
    FORMAT = "dropout.format"  # PT2, or PT2,ONNX
    MC_DIGEST = "dropout.mc_sha256"  # of the MC-dropout program, where the version has one
    IMAGE = "dropout.image"


class ExitCode(IntEnum):
    """How a stage ended, by kind; numbers follow sysexits.h where it has a word for it."""

    OK = 0
    REJECTED = 1  # `dropout check` and `dropout verify` on a terminal; in a pod a rejection is a verdict and exits 0
    UNDECIDED = 3  # nothing failed, but something that had to be shown could not be
    USAGE = 64
    DATA_INVALID = 65
    DATA_MISSING = 66
    TRACKING_UNAVAILABLE = 69
    USER_CODE = 70
    NON_FINITE_LOSS = 71
    EXPORT_FAILED = 73
    CHECKPOINTS_UNAVAILABLE = 74  # their store does not answer, and starting over would lose what lies there
    PREEMPTED = 75  # stopped by SIGTERM after a checkpoint was saved
    PEER_LOST = 76  # another process of a distributed training went away
    SPEC_INVALID = 78


class Condition(StrEnum):
    COMPLETE = "Complete"
    FAILED = "Failed"
    TRAINED = "Trained"
    GATE_PASSED = "GatePassed"
    REGISTERED = "Registered"
    TRACKING_HEALTHY = "TrackingHealthy"
    REGISTRY_PROTECTED = "RegistryProtected"
    PROGRESS_AVAILABLE = "ProgressAvailable"
    RUN_CLOSED = "RunClosed"


def tenant_name(namespace: str, name: str) -> str:
    """Name of an MLflow experiment or registered model, mapped so that no namespace can name another's.

    A namespace holds no dot (RFC 1123 label), so the part before the first dot is always the tenant.
    """
    return f"{namespace}.{name}"


def is_tenants(namespace: str, name: str) -> bool:
    """Whether an experiment or registered model of this full name is the namespace's own."""
    return name.startswith(tenant_name(namespace, ""))


def verified_experiment(namespace: str) -> str:
    """Experiment that holds the verifier's own copies of checked models; trainers may not write it."""
    return f"{namespace}:verified"


def trainer_username(namespace: str) -> str:
    """MLflow user of the training pods of one namespace."""
    return f"trainer.{namespace}"
