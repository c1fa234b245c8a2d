"""A mistake in what is asked, or in the model's own code, is one line with the remedy, and an exit code that says which of the two."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dropout_api.names import ExitCode
from dropout_trainer import cli

SHOP = "dropout_testing.shop"
USAGE, MISSING, USER_CODE = ExitCode.USAGE, ExitCode.DATA_MISSING, ExitCode.USER_CODE
CASES = {
    "a module that is not there": (["dropout_testing.shopping:sound"], USAGE, "no module dropout_testing.shopping"),
    "a name that is not there": ([f"{SHOP}:fourth"], USAGE, "has no fourth"),
    "a name that is no model": ([f"{SHOP}:number"], USAGE, "is a int: neither a torch.nn.Module nor something to call"),
    "a function that needs arguments": ([f"{SHOP}:sized"], USAGE, "'width': write a function that takes none"),
    "a function that gives something else": ([f"{SHOP}:nothing"], USAGE, "gives a dict; it must give a torch.nn.Module"),
    "a model without an example": ([f"{SHOP}:Ranker"], USAGE, "let the callable return a pair"),
    "a file that is not there": (["models/ranker.pt2"], MISSING, "models/ranker.pt2: there is no such file"),
    "an example that is not there": ([f"{SHOP}:Ranker", "--example", "x.npz"], MISSING, "--example x.npz: there is no such file"),
    "an example of another kind": ([f"{SHOP}:Ranker", "--example", "notes.txt"], USAGE, "a .npz, .npy or .safetensors file is read"),
    "an example that is pickled": ([f"{SHOP}:Ranker", "--example", "pickled.npy"], USAGE, "not readable as arrays of numbers"),
    "an example with a gap": ([f"{SHOP}:Ranker", "--example", "gap.npz"], USAGE, "without a gap"),
    "a folder without a model": (["."], USAGE, "a folder with neither manifest.json nor MLmodel"),
    "a file of another kind": (["notes.txt"], USAGE, "cannot be checked. What can is package.module:callable"),
    "what is neither": (["ranker"], USAGE, "'ranker' cannot be checked"),
    "weights without a factory": (["w.safetensors"], USAGE, "with --factory package.module:callable"),
    "a function that raises": ([f"{SHOP}:burning"], USER_CODE, "raised ValueError: the shop burns ("),
    "a function that ends the program": ([f"{SHOP}:leaving"], USER_CODE, "ended the program (exit 3)"),
    "a model that raises": ([f"{SHOP}:closed"], USER_CODE, "raised RuntimeError: the shop is closed ("),
    "a model that needs keywords": ([f"{SHOP}:Keywords", "--example", f"{SHOP}:example"], USER_CODE, "given its example, raised TypeError"),
    "a module that cannot be imported": (["ruin:sound"], USER_CODE, "importing ruin raised ModuleNotFoundError: No module named 'bricks'"),
    "no target": ([], USAGE, "the following arguments are required: TARGET"),
    "a dimension that is none": ([f"{SHOP}:sound", "--batch-dim", "first"], USAGE, "'first' is neither a dimension"),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("notes.txt").write_text("hello")
    Path("ruin.py").write_text("import bricks\n")
    save_file({"weight": torch.ones(1)}, "w.safetensors")
    np.save("pickled.npy", np.array([object()], dtype=object))
    np.savez("gap.npz", arr_0=np.ones(1), arr_2=np.ones(1))


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(["check", *arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("case", CASES)
def test_as(case: str) -> None:
    arguments, code, words = CASES[case]

    found, out, err = run(*arguments)

    assert (found, words in out + err) == (code, True), out + err
    assert "Traceback" not in out + err
    assert len((out or err.split("dropout check: ")[-1]).strip().splitlines()) == 1


def test_while_verbose_shows_where_the_models_own_code_raised() -> None:
    _, out, err = run(f"{SHOP}:burning", "-v")

    assert "raised ValueError: the shop burns" in out
    assert "in burning" in err
    assert "Traceback" in err


def test_and_a_report_that_cannot_be_written_is_one_of_them() -> None:
    code, _, err = run("ranker", "--junit", "notes.txt/junit.xml")

    assert (code, err.strip()) == (USAGE, "--junit notes.txt/junit.xml: File exists")


def test_help_answers_without_loading_torch() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys; from dropout_trainer import cli\ntry: cli.main(['check', '--help'])\nfinally: assert 'torch' not in sys.modules"

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "exit codes: 0 passed, 1 failed, 3 undecided" in done.stdout
