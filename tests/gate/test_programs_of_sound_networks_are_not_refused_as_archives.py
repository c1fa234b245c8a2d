"""The grammar of a harmless .pt2 has room for what torch.export writes of ordinary networks."""

import zipfile
from pathlib import Path

import pytest
import torch
from dropout_testing import zoo
from torch import Tensor, nn

from dropout_trainer.gate import programs
from dropout_trainer.gate.formats import pt2
from dropout_trainer.gate.inputs import Inputs
from dropout_trainer.gate.local import as_call

NAMES = (
    "cnn with batch norm", "multi-head attention", "causal attention", "lstm", "tokens with padding", "several inputs and outputs",
    "stochastic depth", "complex numbers inside", "bfloat16", "cond on the batch size", "weight norm", "in place on the input",
)


class Expressions(nn.Module):
    """Sizes that are sums, squares and quotients of the input's."""

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        side = values.shape[1]
        pairs = (values.unsqueeze(1) * values.unsqueeze(2)).flatten(1)
        halves = values[:, ::2]
        return pairs, halves, nn.functional.pad(values, (0, side // 3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_such_as_one_with(name: str, tmp_path: Path) -> None:
    animal = zoo.SOUND[name]
    program = programs.export(animal.build().eval(), Inputs(as_call(animal.example())))
    torch.export.save(program, tmp_path / "program.pt2")

    assert pt2.validate(tmp_path / "program.pt2")
    assert programs.load(tmp_path / "program.pt2").graph_signature == program.graph_signature


@pytest.mark.filterwarnings("ignore")
def test_nor_one_whose_sizes_are_expressions(tmp_path: Path) -> None:
    sizes = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(Expressions(), (torch.randn(4, 9),), dynamic_shapes=sizes), tmp_path / "program.pt2")
    with zipfile.ZipFile(tmp_path / "program.pt2") as archive:
        text = archive.read(f"program/{pt2.PROGRAM}").decode()
    assert all(word in text for word in ("Pow(", "FloorDiv(", "Add("))

    outputs = programs.load(tmp_path / "program.pt2").module()(torch.ones(2, 8))

    assert [len(output.flatten()) for output in outputs] == [128, 8, 20]
