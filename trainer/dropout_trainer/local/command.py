"""`dropout run FILE`: the jobs of a manifest from training to a registered version, without a cluster."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dropout_api.names import Env, ExitCode
from dropout_api.problems import as_job_spec
from dropout_api.report import VerifyReport
from dropout_api.verdict import Outcome, Verdict
from dropout_trainer.errors import StageFailure, ToldFailure
from dropout_trainer.local.home import Home, Key
from dropout_trainer.local.ignored import ignored
from dropout_trainer.local.job import PASSED, Job, Wanted
from dropout_trainer.local.volumes import Mounts, config_maps, given_environment, translated
from dropout_trainer.manifest import Document, read_manifests
from dropout_trainer.train.ending import Preempted, Terminated, stoppable
from dropout_trainer.validate.command import show
from dropout_trainer.validate.files import Judged, judge_documents
from dropout_trainer.verify.patience import configure
from dropout_trainer.verify.terminal import checks, complain, console, plain

REGISTRY_URI = "MLFLOW_REGISTRY_URI"
NAMESPACE = "default"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """The command's arguments."""

    file: str
    home: str
    again: bool = False
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Folders of this machine by the name of what they stand for in the cluster."""


def run(asked: Asked) -> int:
    """Runs the jobs one after another, up to the first that does not end well.

    Returns an `ExitCode`: OK, REJECTED, PREEMPTED where running it again goes on, those of `dropout validate` and of the stages; or 128 and
    the number of the signal that came before there was anything to go on from.
    """
    try:
        with stoppable():
            return _run(asked)
    except StageFailure as failure:
        if not isinstance(failure, ToldFailure):
            complain(failure)
        return failure.exit_code
    except Preempted as end:
        print(f"interrupted {end.where}; {_next(asked)} goes on from there", file=sys.stderr)
        return ExitCode.PREEMPTED
    except Terminated as end:
        print(f"interrupted {end.where}; {_next(asked)} begins with it", file=sys.stderr)
        return end.exit_code


def _run(asked: Asked) -> int:
    documents = read_manifests(asked.file)
    judged = judge_documents(asked.file, documents)
    if judged.exit_code:
        show([judged], as_json=False)
        return judged.exit_code
    home = Home(asked.home)
    _use(home)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a model of one's own may lie beside its manifest
    for job in judged.jobs:
        log.info("%s in %s", job.name, home.root)
        if code := _run_job(home, job, asked, documents):
            return code
    return ExitCode.OK


def _next(asked: Asked) -> str:
    return "the same command without --again" if asked.again else "the same command"


def _use(home: Home) -> None:
    """Makes the home's MLflow that of this process and its children.

    A server in the environment is not written to: what is registered there should have been verified by a platform, and its guard would
    take the aliases from what this machine registers.
    """
    given = os.environ.get(Env.TRACKING_URI)
    if given and given != home.tracking_uri:
        log.info("%s is not used: `dropout run` has an MLflow of its own, %s", Env.TRACKING_URI, home.tracking_uri)
    os.environ[Env.TRACKING_URI] = os.environ[REGISTRY_URI] = home.tracking_uri
    configure()
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)  # the making of the database is no news


def _run_job(home: Home, judged: Judged, asked: Asked, documents: Sequence[Document]) -> int:
    spec = as_job_spec(judged.body["spec"])
    namespace, name = judged.body["metadata"].get("namespace") or NAMESPACE, judged.name.rstrip("-")
    key = Key.of(namespace, name, spec)
    with home.alone(key):
        mounts = Mounts.of(spec.pod_template, asked.volumes, config_maps(documents), home.volumes(str(key)))
        if left_out := ignored(spec):
            log.info("%s: only a cluster uses %s", name, ", ".join(left_out))
        environment = given_environment(spec.pod_template, mounts)
        job = Job(home, key, Wanted(namespace, name, spec, translated(spec, mounts), environment), asked.again)
        was_finished = job.record.verdict is not None
        verdict = job.to_verdict()
    if was_finished:
        print(f"{name} is finished; --again trains it anew")
    _tell(home, job, name, verdict)
    return ExitCode.OK if verdict.verdict == PASSED else ExitCode.REJECTED


def _tell(home: Home, job: Job, name: str, verdict: VerifyReport) -> None:
    out = console()
    if verdict.verdict == PASSED:
        out.print(plain(f"registered {verdict.model_uri}", "bold green"), soft_wrap=True)
    else:
        bad = [check for check in job.checks(verdict) if check.outcome in (Outcome.FAILED, Outcome.COULD_NOT_RUN)]
        title = f"{name} is not registered"
        out.print(checks(title, Verdict.FAILED, bad) if bad else plain(f"{title}: {verdict.message}"), soft_wrap=not bad)
    out.print(plain(f"look at it: mlflow ui --backend-store-uri {home.tracking_uri}"), soft_wrap=True)
