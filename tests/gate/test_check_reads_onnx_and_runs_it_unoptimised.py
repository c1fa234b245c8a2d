from pathlib import Path

import numpy as np
import pytest
import torch
from dropout_testing import shop
from dropout_testing.onnx_exports import export_as_is
from torch import Tensor, nn

from dropout_api.verdict import Outcome, Verdict
from dropout_trainer.check import targets
from dropout_trainer.check.arguments import Asked
from dropout_trainer.gate.verdict import GateReport

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


class Finder(nn.Module):
    """Takes token ids beside a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.drop, self.last = nn.Embedding(50, 8), nn.Dropout(0.3), nn.Linear(8, 2)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        return self.last(self.drop(self.words(ids) * keep.unsqueeze(-1)).mean(1))


def judge(path: Path, example: Path | None = None) -> GateReport:
    return targets.judge(str(path), Asked([str(path)], example=str(example) if example else None))


def outcomes(report: GateReport) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in report.checks}


def test_a_sound_file_passes_on_inputs_that_are_made_up_for_it(tmp_path: Path) -> None:
    path = export_as_is(Finder().eval(), (torch.randint(0, 50, (3, 6)), torch.ones(3, 6)), tmp_path / "finder.onnx")

    report = judge(path)

    assert report.verdict is Verdict.PASSED, report.message
    assert "made up: ids int64 [4, 6], keep float32 [4, 6]" in {check.name: check.evidence for check in report.checks}["example"]


def test_dropout_that_is_on_is_seen_in_the_graph_and_in_the_answers(tmp_path: Path) -> None:
    report = judge(export_as_is(shop.Ranker().train(), (torch.ones(3, 4),), tmp_path / "live.onnx"))

    found = outcomes(report)
    assert (found["onnx_graph"], found["repeat"]) == (Outcome.FAILED, Outcome.FAILED)
    assert report.failed[0].where is not None
    assert report.failed[0].where.layer == "drop"


def test_inputs_are_given_by_place_or_by_name_and_must_be_all(tmp_path: Path) -> None:
    path = export_as_is(Finder().eval(), (torch.randint(0, 50, (3, 6)), torch.ones(3, 6)), tmp_path / "finder.onnx")
    ids, keep = np.zeros((2, 6), dtype=np.int64), np.ones((2, 6), dtype=np.float32)
    np.savez(tmp_path / "mixed.npz", arr_0=ids, keep=keep)
    np.savez(tmp_path / "lacking.npz", ids)

    assert judge(path, tmp_path / "mixed.npz").verdict is Verdict.PASSED
    lacking = judge(path, tmp_path / "lacking.npz")
    assert lacking.verdict is Verdict.COULD_NOT_RUN
    assert "takes ids, keep and was given 1 inputs by place" in lacking.message


def test_what_is_no_onnx_fails_as_an_archive(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x00" * 64)

    assert [check.name for check in judge(tmp_path / "broken.onnx").failed] == ["archive"]
