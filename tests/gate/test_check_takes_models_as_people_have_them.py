"""Each form of a model and of its example, through the command's own arguments."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dropout_testing import shop, zoo
from safetensors.torch import save_file, save_model

from dropout_api.verdict import Outcome, Verdict
from dropout_trainer.check import models, targets
from dropout_trainer.check.arguments import Asked
from dropout_trainer.gate.target import Module
from dropout_trainer.gate.verdict import GateReport

SHOP = "dropout_testing.shop"
Judge = Callable[..., GateReport]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def judge() -> Judge:
    def judged(target: object, **options: object) -> GateReport:
        return targets.judge(str(target), Asked([str(target)], **options))  # type: ignore[arg-type]

    return judged


def outcomes(report: GateReport) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in report.checks}


def test_a_function_that_gives_a_pair(judge: Judge) -> None:
    assert judge(f"{SHOP}:sound").verdict is Verdict.PASSED


def answers(target: str, example: str | None = None) -> bool:
    """Whether the model that `target` names answers the example that is found for it."""
    module, paired = models.build(target)
    call = models.choose(module, paired, example, target)
    return isinstance(Module(module.eval()).answer(call), torch.Tensor)


@pytest.mark.parametrize("name", ["sound", "OwnExample", "DummyInputs"])
def test_a_class_that_knows_its_own_example(name: str) -> None:
    assert answers(f"{SHOP}:{name}")


def test_an_instance_with_an_example_that_a_function_gives() -> None:
    assert answers(f"{SHOP}:instance", f"{SHOP}:example")


def test_a_module_in_the_current_directory(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corner_shop.py").write_text("from dropout_testing.shop import live\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    report = judge("corner_shop:live")

    assert report.verdict is Verdict.FAILED
    assert any(check.where and check.where.layer == "Live" for check in report.failed)


def test_arguments_by_name_from_numpys_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "example.npz", query=np.random.default_rng(0).normal(size=(3, 4)), weight=np.ones((3, 4)))

    assert answers(f"{SHOP}:Keywords", str(tmp_path / "example.npz"))


def test_weights_in_the_module_that_a_trusted_factory_builds(judge: Judge, tmp_path: Path) -> None:
    save_model(shop.Ranker(), str(tmp_path / "weights.safetensors"))
    save_file({"arg_0": torch.ones(3, 4)}, tmp_path / "example.safetensors")

    report = judge(tmp_path / "weights.safetensors", factory=f"{SHOP}:Live", example=str(tmp_path / "example.safetensors"))

    assert (report.checks[0].name, report.checks[0].outcome, report.verdict) == ("weights", Outcome.PASSED, Verdict.FAILED)


def test_but_not_in_one_that_they_do_not_fit_which_is_no_verdict_on_the_model(judge: Judge, tmp_path: Path) -> None:
    save_file({"first.weight": torch.ones(8, 4), "extra": torch.ones(1)}, tmp_path / "weights.safetensors")
    save_file({**shop.Ranker().state_dict(), "last.bias": torch.ones(5)}, tmp_path / "shape.safetensors")

    names = judge(tmp_path / "weights.safetensors", factory=f"{SHOP}:sound")
    shape = judge(tmp_path / "shape.safetensors", factory=f"{SHOP}:sound")

    assert names.verdict is shape.verdict is Verdict.COULD_NOT_RUN
    assert "lacks first.bias, last.bias, last.weight; the module has no extra" in names.message
    assert "last.bias" in shape.message


def test_an_exported_program_with_its_own_example_or_another(judge: Judge, tmp_path: Path) -> None:
    zoo.export(shop.Ranker().train(), torch.ones(3, 4), tmp_path / "train.pt2")
    np.save(tmp_path / "example.npy", np.ones((5, 4)))

    report = judge(tmp_path / "train.pt2", example=str(tmp_path / "example.npy"))

    assert outcomes(report)["graph"] is Outcome.FAILED
    assert any(check.where and check.where.layer == "drop" for check in report.failed)


def test_a_candidate_as_a_training_pod_writes_it(judge: Judge, tmp_path: Path) -> None:
    made = zoo.candidate(tmp_path / "candidate", zoo.SOUND["mlp"].build())

    assert outcomes(judge(made.folder))["parity"] is Outcome.PASSED


def test_a_model_that_must_be_exported_and_cannot_be_fails_for_that_alone(judge: Judge) -> None:
    report = judge(f"{SHOP}:branching", require_export=True)

    assert [check.name for check in report.failed] == ["export"]


def test_a_model_in_training_mode_as_it_is(judge: Judge) -> None:
    report = judge(f"{SHOP}:OwnExample", as_is=True)

    assert (report.checks[0].name, report.checks[0].remedy, report.verdict) == ("mode", "call model.eval() first", Verdict.FAILED)


def test_a_broken_file_is_a_failure_and_not_an_error(judge: Judge, tmp_path: Path) -> None:
    for name in ("broken.pt2", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 100)

        assert judge(tmp_path / name, factory=f"{SHOP}:sound").verdict is Verdict.FAILED


