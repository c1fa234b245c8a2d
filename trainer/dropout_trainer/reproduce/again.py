"""Trains as `dropout train` does, on this machine, and keeps what it comes to instead of sending it anywhere."""

import itertools
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from dropout_api.candidate import MANIFEST, Manifest
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.reproduce.compare import Facts
from dropout_trainer.train.facts import run_params
from dropout_trainer.train.loop import fit
from dropout_trainer.train.preparing import facts_of, prepare, training_on
from dropout_trainer.train.run import rehearse_export, write_all
from dropout_trainer.train.tracking import as_recorded
from dropout_trainer.train.usercode import user_code
from dropout_trainer.train.weights import Start

log = logging.getLogger(__name__)


def rehearse_training(spec: TrainingJobSpec, start: Start | None = None, epochs: int | None = None) -> Facts:
    """What the training of `spec` comes to, from `start` where it starts from weights. With `epochs` it stops after so many, and there are
    no files.

    Raises StageFailure as the training does.
    """
    ground = prepare(spec, start)
    training = training_on(ground, ground.data, spec.seed)
    rehearse_export(training, spec)
    facts = facts_of(ground, training, None)
    params = as_recorded(run_params(facts, training.model))
    curve, files = [], dict[str, str]()
    with user_code("spec.model.factory: training the model raised", spec.model.factory):
        for result in itertools.islice(fit(training), epochs):
            log.info("%s", result)
            curve.append(result.metrics())
    if epochs is None:
        with TemporaryDirectory(prefix="candidate-") as folder:
            write_all(Path(folder), training.model, facts)
            manifest = Manifest.model_validate_json((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
            files = {name: file.sha256 for name, file in manifest.files.items()}
    return Facts(params, curve, files)
