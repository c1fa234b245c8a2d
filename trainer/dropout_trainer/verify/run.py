"""`dropout verify`, the main program of a verifying pod: candidate in, verdict out, and a version when it passed.

A verdict, good or bad, ends with exit code 0. Anything that kept the verifier from reaching one is a StageError and another
exit code, so that the Job runs again: a verifier that cannot work has said nothing about the model.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from dropout_api.candidate import MC, REPORT_PATH, CandidateConfig, files_for, formats_of
from dropout_api.names import ExitCode, Tag, verified_experiment
from dropout_api.report import StageError, VerifyReport
from dropout_api.task import VerifyTask
from dropout_trainer import stage
from dropout_trainer.errors import StageFailure
from dropout_trainer.gate import gate
from dropout_trainer.gate.verdict import GATE_VERSION, GateReport, RefusedError, failed
from dropout_trainer.train.device import usable_cores
from dropout_trainer.verify import baseline, binding, fetch, package, patience, register, report, signing

NO_DIGEST = "none"
MAX_PLAN = 2000


def main() -> int:
    """Reads the task, verifies, writes the report where the kubelet finds it. Returns the process's exit code."""
    patience.configure()
    torch.set_num_threads(usable_cores())
    try:
        task = stage.read_task(VerifyTask)
        verdict = verify(task, _client(), signing.of_environment())
    except StageFailure as error:
        return _give_up(error.reason, error.message, error.exit_code)
    except MemoryError:
        return _give_up("OutOfMemory", "the verifier ran out of memory; raise its limit in the platform's settings", ExitCode.EXPORT_FAILED)
    except Exception as error:
        _give_up("VerifierCrashed", f"{type(error).__name__}: {error}", ExitCode.TRACKING_UNAVAILABLE)
        raise
    stage.write_report(verdict)
    print(f"{verdict.verdict}: {verdict.model_uri or verdict.message}", flush=True)
    return ExitCode.OK


def verify(task: VerifyTask, client: Any, keys: signing.Keys = signing.UNSIGNED) -> VerifyReport:
    """The verdict on the candidate of the run that trained the model; when it passed, the version is registered on return, signed
    if there is a key.

    Raises StageFailure when the verifier could not do its work.
    """
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        workspace = Path(name)
        candidate = workspace / "candidate"
        candidate.mkdir()
        inspection = _inspect(task, client, workspace, keys)
        print(report.table(inspection.report.checks), flush=True)
        try:
            return _conclude(task, client, inspection, keys, workspace)
        except StageFailure:
            raise
        except Exception as error:
            code = patience.error_code(error)
            if not code:
                raise
            raise StageFailure("RegistryRefused", f"MLflow refused ({code}): {str(error)[:400]}", ExitCode.TRACKING_UNAVAILABLE) from error


def _inspect(task: VerifyTask, client: Any, workspace: Path, keys: signing.Keys) -> gate.Inspection:
    folder = workspace / "candidate"
    try:
        fetch.candidate(client, task.trained.id, folder, files_for(task.spec.export))
    except RefusedError as error:
        return gate.Inspection(GateReport(checks=[failed("candidate", error.evidence, error.remedy)]))
    except StageFailure:
        raise
    except Exception as error:
        message = f"the candidate of run {task.trained.id} cannot be downloaded: {str(error)[:400]}"
        raise StageFailure("CandidateUnreadable", message, ExitCode.TRACKING_UNAVAILABLE) from error
    baselines = baseline.find(client, task, folder, keys.public, workspace / "baselines")
    inspection = gate.inspect(folder, task.spec.gate, task.spec.export, baselines)
    if inspection.config:
        _same_torch(inspection.config)
    return inspection


def _same_torch(config: CandidateConfig) -> None:
    trained = config.versions.get("torch", torch.__version__)
    if trained.split(".")[:2] != torch.__version__.split(".")[:2]:
        message = f"the model was exported with torch {trained[:40]}, the verifier has {torch.__version__}; use images of one release"
        raise StageFailure("TorchMismatch", message, ExitCode.EXPORT_FAILED)


def _conclude(task: VerifyTask, client: Any, inspection: gate.Inspection, keys: signing.Keys, workspace: Path) -> VerifyReport:
    found = inspection.report
    order = _order(task, inspection, keys)
    experiment = register.ensure_experiment(client, order.experiment)
    own_run = register.ensure_run(client, experiment, order)
    files = report.write(workspace / "report", task, inspection)
    verdict = VerifyReport(
        verdict="Passed" if found.passed else "Failed", failed=[check.name for check in found.failed],
        message=stage.shortened(found.message), sha256=inspection.sha256, metrics=found.metrics,
        report_uri=register.keep_report(client, own_run, files, found.metrics),
    )
    if found.passed:
        def build() -> Path:
            return _build(task, inspection, keys.private, workspace)

        number = register.register(client, experiment, own_run, order, build, workspace)
        verdict = verdict.model_copy(update={
            "model_name": order.model, "model_version": number, "model_uri": f"models:/{order.model}/{number}"})
    _attach(client, task.run.id, files, verdict)
    return verdict


def _build(task: VerifyTask, inspection: gate.Inspection, private: Path | None, workspace: Path) -> Path:
    """The folder that becomes the version: model, statement on every file of it, and the signature over all of that."""
    assert inspection.config is not None
    candidate, target = workspace / "candidate", workspace / "model"
    package.build(candidate, inspection.config, inspection.digests, task.spec.export, target)
    binding.write(target, binding.state(task, inspection.report, inspection.config, candidate, target))
    if private:
        signing.sign(target, private)
    return target


def _order(task: VerifyTask, inspection: gate.Inspection, keys: signing.Keys) -> register.Order:
    job = task.job
    tags = {
        Tag.CLUSTER: job.cluster, Tag.NAMESPACE: job.namespace, Tag.NAME: job.name, Tag.UID: job.uid, Tag.RUN_ID: task.run.id,
        Tag.DIGEST: inspection.sha256 or NO_DIGEST, Tag.SEED: seed_tag(task, inspection.config), Tag.IMAGE: task.image_id or "unknown",
        Tag.VERDICT: "Passed" if inspection.report.passed else "Failed", Tag.GATE_VERSION: GATE_VERSION,
        Tag.PLAN: plan_tag(inspection.config), **({Tag.FROM_RUN: task.source.id} if task.source else {}),
        Tag.FORMAT: formats_of(inspection.digests),
        **({Tag.MC_DIGEST: inspection.digests[MC]} if MC in inspection.digests else {}),
    }
    by = f"run {task.source.id}, verified again by" if task.source else "the training of"
    return register.Order(
        model=task.model_name, experiment=verified_experiment(job.namespace), title=job.name, run_id=task.trained.id,
        tags={tag.value: value for tag, value in tags.items()}, alias=task.spec.export.alias, keys=keys.public,
        description=f"Exported in eval mode by {by} {job.namespace}/{job.name} and passed by gate version {GATE_VERSION}.",
    )


def seed_tag(task: VerifyTask, config: CandidateConfig | None) -> str:
    """The seed of the training. A job with `spec.from` has trained nothing by its own, so there the candidate's counts."""
    if task.source is None:
        return str(task.spec.seed)
    return str(config.seed) if config else "unknown"


def plan_tag(config: CandidateConfig | None) -> str:
    """The dropout plan as JSON, place to rate, with as many places as a tag should hold; what is left out is counted."""
    rates = {row.place: row.rate for row in config.plan} if config else {}
    text, kept = json.dumps(rates), list(rates)
    while len(text) > MAX_PLAN:
        kept = kept[: len(kept) // 2]
        text = json.dumps({layer: rates[layer] for layer in kept} | {"…": len(rates) - len(kept)})
    return text


def _attach(client: Any, run_id: str, files: Path, verdict: VerifyReport) -> None:
    """A copy of the report for the training run's page. The one that counts is the verifier's own, so failing here is no failure."""
    try:
        client.log_artifacts(run_id, str(files), REPORT_PATH)
        client.set_tag(run_id, Tag.VERDICT.value, verdict.verdict)
    except Exception as error:
        print(f"warning: the report could not be attached to run {run_id}: {str(error)[:300]}", file=sys.stderr, flush=True)


def _client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient()


def _give_up(reason: str, message: str, code: ExitCode) -> int:
    stage.write_report(StageError(stage="verify", reason=reason, message=stage.shortened(message)))
    print(f"{reason}: {message}", file=sys.stderr, flush=True)
    return code
