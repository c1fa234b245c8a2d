"""Trains as `dropout train` does, on this machine, and keeps what it comes to instead of sending it anywhere."""

import itertools
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dropout_api.candidate import MANIFEST, Manifest
from dropout_api.names import ExitCode
from dropout_api.spec import TrainingJobSpec
from dropout_trainer.data import digest
from dropout_trainer.errors import StageFailure
from dropout_trainer.reproduce.compare import Facts as Repeated
from dropout_trainer.train.candidate import rehearse, write_candidate
from dropout_trainer.train.device import pick_device, usable_threads
from dropout_trainer.train.export import eval_copy
from dropout_trainer.train.factories import build_data, build_model
from dropout_trainer.train.facts import Facts, candidate_config, run_params
from dropout_trainer.train.loop import fit
from dropout_trainer.train.objective import make_task
from dropout_trainer.train.plan import apply_plan, make_plan
from dropout_trainer.train.seeds import derive, seed_everything, set_determinism
from dropout_trainer.train.tracking import PARAM_LENGTH, _key
from dropout_trainer.train.usercode import user_code

log = logging.getLogger(__name__)


def rehearse_training(spec: TrainingJobSpec, epochs: int | None = None) -> Repeated:
    """What the training of `spec` comes to. With `epochs` it stops after so many, and there are no files.

    Raises StageFailure as the training does.
    """
    if spec.model.weights is not None:
        message = "spec.model.weights: a training that started from other weights cannot be repeated here yet"
        raise StageFailure("WeightsNotRepeatable", message, ExitCode.UNDECIDED)
    seeds = derive(spec.seed)
    torch.set_num_threads(usable_threads(spec.resources_per_node))
    set_determinism(spec.determinism)
    seed_everything(seeds)
    data = build_data(spec.data, seeds["split"])
    task = make_task(data, spec.training.loss)
    device = pick_device(spec.resources_per_node)
    model = build_model(spec.model, data, task.outputs).to(device)
    plan = make_plan(model, spec.dropout)
    apply_plan(plan, model)
    with user_code("spec.model.factory: exporting raised", spec.model.factory):
        rehearse(model, data.test.inputs, spec.export)
    facts = Facts(spec, seeds, plan, data, digest(data), task, str(device), torch.get_num_threads())
    params = {_key(name): str(value)[:PARAM_LENGTH] for name, value in run_params(facts, model).items()}
    curve, files = [], dict[str, str]()
    with user_code("spec.model.factory: training the model raised", spec.model.factory):
        for result in itertools.islice(fit(model, data, plan, spec.training, seeds), epochs):
            log.info("%s", result)
            curve.append(result.metrics())
    if epochs is None:
        with TemporaryDirectory(prefix="candidate-") as folder:
            write_candidate(Path(folder), eval_copy(model), data.test, candidate_config(facts, []), spec.export)
            manifest = Manifest.model_validate_json((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
            files = {name: file.sha256 for name, file in manifest.files.items()}
    return Repeated(params, curve, files)
