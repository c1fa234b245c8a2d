"""What only the training pod could see, because it needs the user's code; its word, marked as such."""

import re

from dropout_trainer.gate.program import Subject
from dropout_trainer.gate.verdict import Basis, CheckResult, Location, Outcome

MODAL = re.compile(r"dropout|batch_?norm|instance_?norm|rrelu|lstm|gru|rnn|multiheadattention|transformer", re.IGNORECASE)


def left_in_training(subject: Subject) -> CheckResult:
    """eval() reached every module whose behaviour depends on its mode."""
    left = subject.config.left_in_training
    modal = [module for module in left if MODAL.search(module.type)]
    if not modal:
        return CheckResult(name="left_in_training", outcome=Outcome.PASSED, basis=Basis.ATTESTED,
                           evidence=f"{len(left)} modules stayed in training mode, none of a kind that behaves differently there")
    first = modal[0]
    return CheckResult(
        name="left_in_training", outcome=Outcome.FAILED, basis=Basis.ATTESTED,
        evidence=f"{first.type[:80]} in layer '{first.layer[:120]}' stayed in training mode after eval() ({len(modal)} such modules)",
        where=Location(layer=first.layer[:120], op=first.type[:80]),
        remedy="let an overridden train(mode) pass its mode on: super().train(mode); register layers, do not keep them in a list",
    )
