"""`assert_eval_mode` in a test: what it says, and that it changes nothing."""

import random
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from dropout_testing import shop

from dropout_trainer.check.preserve import preserved
from dropout_trainer.testing import assert_eval_mode

ROOT = Path(__file__).parents[2]
pytest_plugins = ["pytester"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def streams() -> list[object]:
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # type: ignore[union-attr]


def test_when_it_passes() -> None:
    model, example = shop.Ranker().eval(), shop.example()
    model.drop.training, before = True, streams()  # that alone: the probe must not be the one who repairs it
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(AssertionError, match="stayed in training mode"):
        assert_eval_mode(model, example)

    assert streams() == before
    assert [part.training for part in model.modules()] == [False, False, True, False]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    model.eval()
    assert_eval_mode(model, example)


def test_when_it_fails_with_a_text_that_names_layer_op_and_remedy() -> None:
    model = shop.Normed()
    calls, mean = model.calls, model.norm.running_mean

    with pytest.raises(AssertionError) as raised:
        assert_eval_mode(model, torch.randn(4, 4))

    assert (model.training, model.norm.training) == (True, True)
    assert model.calls is calls
    assert model.norm.running_mean is mean
    assert (float(calls), mean.tolist(), int(model.norm.num_batches_tracked)) == (0.0, [0.0] * 4, 0)  # type: ignore[union-attr, arg-type]
    lines = str(raised.value).splitlines()
    assert lines[0] == "Normed is not known to be in eval mode"
    assert lines[1:3] == ["  mode: the model is in training mode", "    remedy: call model.eval() first"]
    assert "BatchNorm1d in layer 'norm'" in lines[3]
    assert len(lines) < 12


def test_even_when_a_forward_writes_to_weights_and_moves_a_generator_of_its_own() -> None:
    model = shop.Ranker()
    model.source = torch.Generator().manual_seed(3)  # type: ignore[assignment]
    weight, state = model.first.weight.clone(), model.source.get_state()

    with preserved(model), torch.no_grad():
        model.eval()
        model.first.weight.add_(1)
        model.last.bias = torch.nn.Parameter(torch.ones(2))
        torch.rand(3, generator=model.source)
        random.random()

    assert model.training
    assert torch.equal(model.first.weight, weight)
    assert not torch.equal(model.last.bias, torch.ones(2))
    assert torch.equal(model.source.get_state(), state)


def test_the_fixture_is_found_through_pytests_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    plugin = import_module(project["entry-points"]["pytest11"]["dropout"])

    assert hasattr(plugin, "assert_eval_mode")


def test_the_plugin_costs_a_run_that_does_not_use_it_no_torch() -> None:
    code = "import sys, dropout_trainer.pytest_plugin; print({'torch', 'numpy', 'pydantic', 'rich'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_a_failure_shows_the_test_and_no_frame_of_ours(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    pytester.makepyfile("""
        from dropout_testing import shop

        def test_ranker(assert_eval_mode):
            assert_eval_mode(shop.Live().eval(), shop.example())
    """)

    result = pytester.runpytest_subprocess("-p", "dropout_trainer.pytest_plugin", "-p", "no:cacheprovider")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        ">*assert_eval_mode(shop.Live().eval(), shop.example())", "E*Live is not known to be in eval mode", "E*remedy: *",
    ])
    result.stdout.no_fnmatch_line("*raise AssertionError*")
    result.stdout.no_fnmatch_line("*torch.__trace*")
