"""A wrong setting ends the operator at its start, with the variable's name."""

import subprocess
import sys

import pytest

from dropout_operator.settings import Settings, SettingsError

GOOD = {"DROPOUT_NAMESPACE": "dropout-system", "DROPOUT_TRAINER_IMAGE": "trainer:1", "DROPOUT_MLFLOW_URI": "http://mlflow:5000"}


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_missing_variable_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        Settings.from_environment({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(("name", "value"), [
    ("DROPOUT_RESYNC_SECONDS", "soon"), ("DROPOUT_RESYNC_SECONDS", "0"), ("DROPOUT_POLL_SECONDS", "-1"), ("DROPOUT_POLL_SECONDS", "nan"),
    ("DROPOUT_WORKERS", "0.5"), ("DROPOUT_PORT", "http"), ("DROPOUT_TRAIN_RESOURCES", "{"), ("DROPOUT_VERIFY_RESOURCES", "[]"),
    ("DROPOUT_MLFLOW_AUTH", "yes"), ("DROPOUT_LOG_LEVEL", "LOUD"),
    ("DROPOUT_REGISTRY_GUARD", "enforce"), ("DROPOUT_REGISTRY_MODELS", "*"), ("DROPOUT_REGISTRY_MODELS", '["", "a"]'),
    ("DROPOUT_REGISTRY_MODELS", '"*"'),
])
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({**GOOD, name: value})


def test_passwords_need_the_key_they_are_derived_from() -> None:
    with pytest.raises(SettingsError, match="DROPOUT_TRAINER_KEY"):
        Settings.from_environment({**GOOD, "DROPOUT_MLFLOW_AUTH": "true"})


def test_the_verifiers_image_is_the_trainers_unless_set() -> None:
    assert Settings.from_environment(GOOD).verifier_image == "trainer:1"
    assert Settings.from_environment({**GOOD, "DROPOUT_VERIFIER_IMAGE": "verifier@sha256:1"}).verifier_image == "verifier@sha256:1"


def test_the_process_ends_with_the_exit_code_for_a_wrong_configuration() -> None:
    done = subprocess.run([sys.executable, "-m", "dropout_operator"], env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
                          capture_output=True, text=True, timeout=60)

    assert done.returncode == 78
    assert done.stderr.startswith("dropout-operator: DROPOUT_MLFLOW_URI is not set")
