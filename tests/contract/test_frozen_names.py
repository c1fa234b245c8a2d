"""Names that others rely on: dashboards, queries, scripts, stored runs. A change here breaks what this repository does not see."""

from dropout_api import candidate, names
from dropout_api.crd import COLUMNS
from dropout_api.spec import JobSpec
from dropout_api.status import JobStatus, Phase


def test_group_version_kind() -> None:
    assert (names.GROUP, names.API_VERSION, names.KIND, names.PLURAL, names.SHORT_NAME) == (
        "training.dropout.dev", "v1alpha1", "DropoutTrainingJob", "dropouttrainingjobs", "dtj")


def test_labels() -> None:
    assert set(names.Label) == {
        "training.dropout.dev/job-uid", "training.dropout.dev/job-namespace", "training.dropout.dev/job-name",
        "training.dropout.dev/stage", "training.dropout.dev/attempt",
    }
    assert set(names.Stage) == {"train", "verify"}


def test_environment() -> None:
    assert set(names.Env) == {
        "DROPOUT_TASK", "DROPOUT_TERMINATION_LOG", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
        "DROPOUT_SIGNING_KEY", "DROPOUT_VERIFYING_KEY",
    }
    assert names.RESERVED_ENV_PREFIXES == ("DROPOUT_", "MLFLOW_")
    assert all(name.startswith(names.RESERVED_ENV_PREFIXES) for name in names.Env)


def test_mlflow_metrics_and_tags() -> None:
    assert set(names.Metric) == {
        "train_loss", "val_loss", "val_gap", "val_accuracy", "learning_rate", "train_loss_with_dropout", "test_loss", "test_accuracy",
        "epoch_seconds",
    }
    assert set(names.Tag) == {
        "dropout.cluster", "dropout.uid", "dropout.namespace", "dropout.name", "dropout.attempt", "dropout.phase", "dropout.message",
        "dropout.run_id", "dropout.from_run", "dropout.sha256", "dropout.code_sha256", "dropout.seed", "dropout.plan", "dropout.verdict",
        "dropout.gate_version", "dropout.statement_sha256", "dropout.quarantined", "dropout.format", "dropout.mc_sha256", "dropout.image",
    }


def test_prometheus_series() -> None:
    assert set(names.Gauge) == {
        "dropout_train_loss", "dropout_val_loss", "dropout_val_gap", "dropout_epoch", "dropout_epochs", "dropout_job_train_loss",
        "dropout_job_val_loss", "dropout_job_val_gap", "dropout_job_progress_ratio", "dropout_job_info",
        "dropout_quarantined_versions", "dropout_registry_webhook",
    }
    assert (names.METRICS_PORT, names.METRICS_PORT_NAME) == (8080, "metrics")
    assert (names.METRICS_PATH, names.PROGRESS_PATH) == ("/metrics", "/progress")


def test_exit_codes() -> None:
    assert {code.name: int(code) for code in names.ExitCode} == {
        "OK": 0, "REJECTED": 1, "UNDECIDED": 3, "USAGE": 64, "DATA_INVALID": 65, "DATA_MISSING": 66, "TRACKING_UNAVAILABLE": 69,
        "USER_CODE": 70, "NON_FINITE_LOSS": 71, "EXPORT_FAILED": 73, "CHECKPOINTS_UNAVAILABLE": 74,
        "PREEMPTED": 75, "PEER_LOST": 76, "SPEC_INVALID": 78,
    }


def test_conditions_and_phases() -> None:
    assert set(names.Condition) == {
        "Complete", "Failed", "Trained", "GatePassed", "Registered", "TrackingHealthy", "RegistryProtected", "ProgressAvailable",
        "RunClosed",
    }
    assert [str(phase) for phase in Phase] == [
        "Pending", "Queued", "Starting", "Running", "Suspended", "Verifying", "Succeeded", "Rejected", "Failed",
    ]


def test_fields_of_spec_and_status() -> None:
    assert set(JobSpec.model_json_schema()["properties"]) == {
        "model", "data", "from", "dropout", "training", "seed", "determinism", "image", "imagePullPolicy", "imagePullSecrets",
        "resourcesPerNode", "podTemplate", "tracking", "export", "gate", "checkpoint", "restart", "suspend", "startDeadlineSeconds",
        "activeDeadlineSeconds", "ttlSecondsAfterFinished", "command", "nodes", "processesPerNode",
    }
    assert set(JobStatus.model_json_schema()["properties"]) == {
        "observedGeneration", "phase", "message", "conditions", "attempts", "restarts", "run", "progress", "devices", "imageID", "artifact",
        "gate", "model", "failure", "startTime", "completionTime",
    }


def test_files_of_a_candidate() -> None:
    assert candidate.FILES == ("eval.pt2", "heldout.safetensors", "weights.safetensors", "config.json")
    assert candidate.ASKED_BY == {"mc.pt2": "spec.export.mcPasses", "model.onnx": "spec.export.formats"}
    assert (candidate.formats_of(candidate.FILES), candidate.formats_of(["model.onnx"])) == ("PT2", "PT2,ONNX")
    assert (candidate.CANDIDATE_PATH, candidate.MANIFEST) == ("candidate", "manifest.json")


def test_printer_columns() -> None:
    assert [name for name, *_ in COLUMNS] == ["Phase", "Progress", "Val-Gap", "Model", "Restarts", "Age", "Message"]


def test_tenants_names_cannot_meet() -> None:
    assert names.tenant_name("a", "b.c") == "a.b.c"
    assert names.tenant_name("a", "b") != names.tenant_name("a-b", "")
    assert names.is_tenants("a", "a.b.c")
    assert not any(names.is_tenants("a", name) for name in ("", "a", "ab.c", "a-b.c", "b.a.c", "A.b", names.verified_experiment("a")))
    assert names.verified_experiment("a") == "a:verified"
    assert names.trainer_username("a") == "trainer.a"
