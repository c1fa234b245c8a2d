"""What the API server let through, as wrong arguments of built-ins, fails the job before any pod, with all of it in one condition."""

from typing import Any

from dropout_testing.worlds import NOW, condition, kinds, spec_wire, world, written

from dropout_api.status import Phase
from dropout_operator.planning import plan
from dropout_operator.world import TrainingJob


def job(**changes: Any) -> TrainingJob:
    meta = {"namespace": "team", "name": "digits", "uid": "u", "creationTimestamp": NOW.isoformat()}
    return TrainingJob.parse({"metadata": meta, "spec": spec_wire(**changes)}, "cluster")


def test_all_at_once_and_no_pod() -> None:
    wrong = job(model={"factory": "mlp", "args": {"hiden": [1], "dropout": 2}}, gate=[{"metric": "mae", "max": 1}],
                data={"factory": "sklearn", "args": {"name": "iris"}}, ttlSecondsAfterFinished={"failed": 60})
    actions = plan(world(job=wrong)).actions
    after = written(actions)

    assert kinds(actions) == ["EmitEvent", "WriteStatus"]
    assert (after.phase, condition(after, "Failed")) == (Phase.FAILED, "True")
    assert after.failure is not None
    assert after.failure.reason == "InvalidSpec"
    fields = [part.split(":")[0] for part in after.failure.message.split("; ") if part.startswith("spec.")]
    assert fields == ["spec.model.args.hiden", "spec.model.args.dropout", "spec.data.args.name", "spec.gate[0].metric"]
    assert wrong.spec is not None  # so that its time to live still counts


def test_a_hundred_problems_fit_a_condition_and_say_how_many_they_are() -> None:
    found = job(dropout={"layers": [{"rate": 2, "kind": "Nothing"} for _ in range(50)]}).problem

    assert found is not None
    assert len(found) < 1600
    assert "more, which `dropout validate` prints" in found


def test_a_right_spec_has_no_problem() -> None:
    assert job().problem is None
