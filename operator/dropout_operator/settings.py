"""The platform's settings, read once from the environment that the Helm chart writes."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

Guard = Literal["Off", "Report", "Enforce"]


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable."""


@dataclass(frozen=True)
class Settings:
    """What the platform decides for all jobs."""

    namespace: str
    """The operator's own namespace, where verify Jobs run."""
    trainer_image: str
    verifier_image: str
    image_pull_policy: str
    mlflow_uri: str
    """As pods and the operator reach it."""
    mlflow_public_url: str
    """As people's browsers reach it; the base of links in status."""
    mlflow_auth: bool
    """Whether MLflow asks for passwords and this operator makes the trainers' users."""
    trainer_key: bytes
    """Secret from which the trainers' passwords are derived, one for each namespace."""
    verifier_secret: str | None
    """Secret in the operator's namespace with the verifier's `username` and `password`."""
    verifier_service_account: str
    train_resources: dict[str, Any] = field(default_factory=dict)
    verify_resources: dict[str, Any] = field(default_factory=dict)
    resync_seconds: float = 300.0
    poll_seconds: float = 5.0
    workers: int = 16
    port: int = 8080
    log_level: str = "INFO"
    signing_secret: str | None = None
    """Secret in the operator's namespace with `signing-key.pem` and `verifying-key.pem`; versions are signed where there is one."""
    verifying_key: str | None = None
    """File of the keys that the operator itself checks signatures with."""
    guard: Guard = "Off"
    """What becomes of versions that did not come through the gate."""
    guarded_models: tuple[str, ...] = ("*",)
    """Patterns of the names of registered models that are looked at, as in a shell."""
    webhook_url: str | None = None
    """Where MLflow shall call the operator; None where it does not call, or somebody else has told it to."""
    webhook_secret: str | None = None
    pod_name: str = "dropout-operator"
    pod_uid: str | None = None

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Raises SettingsError when a variable is missing or cannot be read."""
        auth = _boolean(env, "DROPOUT_MLFLOW_AUTH")
        uri = _required(env, "DROPOUT_MLFLOW_URI")
        return cls(
            namespace=_required(env, "DROPOUT_NAMESPACE"),
            trainer_image=_required(env, "DROPOUT_TRAINER_IMAGE"),
            verifier_image=env.get("DROPOUT_VERIFIER_IMAGE") or _required(env, "DROPOUT_TRAINER_IMAGE"),
            image_pull_policy=env.get("DROPOUT_IMAGE_PULL_POLICY", "IfNotPresent"),
            mlflow_uri=uri,
            mlflow_public_url=(env.get("DROPOUT_MLFLOW_PUBLIC_URL") or uri).rstrip("/"),
            mlflow_auth=auth,
            trainer_key=_required(env, "DROPOUT_TRAINER_KEY").encode() if auth else b"",
            verifier_secret=env.get("DROPOUT_VERIFIER_SECRET") or None,
            verifier_service_account=env.get("DROPOUT_VERIFIER_SERVICE_ACCOUNT", "default"),
            train_resources=_json(env, "DROPOUT_TRAIN_RESOURCES"),
            verify_resources=_json(env, "DROPOUT_VERIFY_RESOURCES"),
            resync_seconds=_positive(env, "DROPOUT_RESYNC_SECONDS", 300.0),
            poll_seconds=_positive(env, "DROPOUT_POLL_SECONDS", 5.0),
            workers=_count(env, "DROPOUT_WORKERS", 16),
            port=_count(env, "DROPOUT_PORT", 8080),
            log_level=_level(env, "DROPOUT_LOG_LEVEL"),
            signing_secret=env.get("DROPOUT_SIGNING_SECRET") or None,
            verifying_key=env.get("DROPOUT_VERIFYING_KEY") or None,
            guard=_guard(env, "DROPOUT_REGISTRY_GUARD"),
            guarded_models=_patterns(env, "DROPOUT_REGISTRY_MODELS"),
            webhook_url=env.get("DROPOUT_WEBHOOK_URL") or None,
            webhook_secret=env.get("DROPOUT_WEBHOOK_SECRET") or None,
            pod_name=env.get("DROPOUT_POD_NAME") or "dropout-operator",
            pod_uid=env.get("DROPOUT_POD_UID") or None,
        )


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; the Helm chart sets it")
    return value


def _positive(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name} is not a number: {text!r}") from None
    if not 0 < value < math.inf:
        raise SettingsError(f"{name} must be above 0: {text!r}")
    return value


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(f"{name} must be a whole number above 0: {text!r}")
    return int(text)


def _boolean(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name) or "false"
    if text not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false: {text!r}")
    return text == "true"


def _level(env: Mapping[str, str], name: str) -> str:
    text = env.get(name) or "INFO"
    if text not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise SettingsError(f"{name} must be DEBUG, INFO, WARNING, ERROR or CRITICAL: {text!r}")
    return text


def _guard(env: Mapping[str, str], name: str) -> Guard:
    text = env.get(name) or "Off"
    if text not in ("Off", "Report", "Enforce"):
        raise SettingsError(f"{name} must be Off, Report or Enforce: {text!r}")
    return cast("Guard", text)


def _patterns(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        value = json.loads(env.get(name) or '["*"]')
    except ValueError:
        raise SettingsError(f"{name} is not JSON") from None
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise SettingsError(f"{name} must be a JSON list of patterns")
    return tuple(value)


def _json(env: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(env.get(name) or "{}")
    except ValueError:
        raise SettingsError(f"{name} is not JSON") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{name} must be a JSON object")
    return value
