"""`dropout reproduce RUN_ID`: trains again from what an MLflow run records, and says whether it is the same. MLflow is only read."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from dropout_api.names import ExitCode
from dropout_api.task import RunRef
from dropout_trainer.errors import StageFailure
from dropout_trainer.reproduce.again import rehearse_training
from dropout_trainer.reproduce.compare import Comparison, Kind, Outcome, compare
from dropout_trainer.reproduce.recorded import Recorded, read
from dropout_trainer.train.facts import WEIGHTS_RUN
from dropout_trainer.train.weights import Start, read_weights
from dropout_trainer.verify.patience import configure
from dropout_trainer.verify.target import connect
from dropout_trainer.verify.terminal import complain, console, plain

EXIT_CODES = {Outcome.EQUAL: ExitCode.OK, Outcome.DIFFERS: ExitCode.REJECTED, Outcome.UNDECIDED: ExitCode.UNDECIDED}
STYLES = {Outcome.EQUAL: "bold green", Outcome.DIFFERS: "bold red", Outcome.UNDECIDED: "bold yellow"}


def run(run_id: str, epochs: int | None, as_json: bool) -> int:
    """Prints what was found. Returns an `ExitCode`: OK, REJECTED, UNDECIDED, DATA_MISSING, TRACKING_UNAVAILABLE, or the trainer's own."""
    configure()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # where a model of one's own may lie
    try:
        client = connect()
        recorded = read(client, run_id)
        found = compare(recorded.facts, rehearse_training(recorded.spec, _weights(client, recorded), epochs), epochs)
    except StageFailure as failure:
        complain(failure)
        return failure.exit_code
    if as_json:
        print(json.dumps(_wire(run_id, found), indent=1))
    else:
        console().print(plain(f"run {run_id}: {_headline(found)}", STYLES[found.outcome]))
        for difference in found.differences:
            console().print(plain(f"  {difference.kind:<8} {difference}"))
    return EXIT_CODES[found.outcome]


def _weights(client: Any, recorded: Recorded) -> Start | None:
    """What the training started from, None when it drew its weights. Raises StageFailure."""
    wanted, run = recorded.spec.model.weights, recorded.facts.params.get(WEIGHTS_RUN)
    if wanted is None:
        return None
    source = RunRef(id=run, experiment_id="") if run else None
    return read_weights(wanted, source, lambda of, path, folder: Path(client.download_artifacts(of, path, str(folder))))


def _headline(found: Comparison) -> str:
    compared = ", ".join([f"{found.epochs} epochs", *found.files])
    match found.outcome:
        case Outcome.EQUAL:
            aside = "; what differs below changed nothing" if found.differences else ""
            return f"equal ({compared}){aside}"
        case Outcome.UNDECIDED if not found.epochs:
            return "undecided: it records no epoch to compare"
        case Outcome.UNDECIDED:
            first = next(item.kind for item in found.differences if item.kind in (Kind.VERSION, Kind.MACHINE))
            return f"undecided: it came out otherwise, and the {first} is another, so that proves nothing ({compared})"
    return f"differs, first in its {found.differences[0].kind} ({compared})"


def _wire(run_id: str, found: Comparison) -> dict[str, object]:
    return {
        "run": run_id, "outcome": found.outcome, "epochs": found.epochs, "files": list(found.files),
        "differences": [{"kind": item.kind, "what": item.what, "recorded": item.recorded, "here": item.here} for item in found.differences],
    }
