"""Writes to the MLflow run that the operator made, by its id, from threads of its own.

    training ──► inbox ──► backlog: a spool on disk, bounded memory where there is none ──► MLflow
               (memory)  (the spooler thread)                                    (the sender thread)

Training hands over what it has and goes on. What was handed over is on disk a moment later, whatever MLflow does, and goes
to MLflow in order, as many points in a request as it takes. While MLflow is away it waits and is tried again: an outage
neither slows training nor ends it nor loses a point. What a process that dies has not sent goes to the next one: in the
spool where that lies beside the checkpoints, else in the checkpoint itself. A write whose answer was lost is repeated as it
was, and MLflow keeps equal points (key, time, step, value) once. The run's state is never set here: that is the operator's.
"""

from dropout_trainer.train.tracking.machine import Machine, own_machine
from dropout_trainer.train.tracking.pipeline import Policy
from dropout_trainer.train.tracking.place import hand_over, tracking_of
from dropout_trainer.train.tracking.recorder import Tracking, mlflow_client
from dropout_trainer.train.tracking.writes import as_recorded

__all__ = ["Machine", "Policy", "Tracking", "as_recorded", "hand_over", "mlflow_client", "own_machine", "tracking_of"]
