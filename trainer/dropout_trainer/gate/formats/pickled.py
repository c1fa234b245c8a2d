"""Loads a module by the code that its file carries. Runs that code: to be called inside the cage alone (sandbox.py)."""

import importlib
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from dropout_trainer.gate.example import NO_EXAMPLE, read_example
from dropout_trainer.gate.inputs import Call
from dropout_trainer.gate.local import as_call
from dropout_trainer.gate.verdict import RefusedError

OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The number, pickled, with which torch.save began before it wrote zip archives."""
HOW = "save the whole module with torch.save, torch.jit.save or mlflow.pytorch.log_model"


def load(path: Path, example: Path | None) -> tuple[nn.Module, Call]:
    """The module in a file or an MLflow folder, and what to call it with: `example`, or the folder's own input example.

    Raises RefusedError, with what the file's own code raised where that is why.
    """
    configuration = _mlmodel(path) if path.is_dir() else {}
    module = _attempt(f"{path.name} cannot be loaded", lambda: _module_of(path, configuration))
    call = _attempt("the example cannot be read", lambda: read_example(example) if example else _own_example(path, configuration, module))
    return module, call


def _attempt(what: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except RefusedError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise RefusedError(f"{what}: {type(error).__name__} {lines[0][:600]}", HOW) from None


def _module_of(path: Path, configuration: dict[str, Any]) -> nn.Module:
    held = _in_folder(path, configuration) if path.is_dir() else _in_file(path)
    if isinstance(held, nn.Module):
        return held
    if isinstance(held, dict):
        raise RefusedError(f"{path.name} holds weights and no module", f"build the module in a callable and give that, or {HOW}")
    raise RefusedError(f"{path.name} holds a {type(held).__name__} and no torch module", HOW)


def _in_file(path: Path, pickle_module: Any = pickle) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())
        if scripted:
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickle_module)
    with path.open("rb") as file:
        if file.read(len(OLD_TORCH)) != OLD_TORCH:
            file.seek(0)
            return pickle.load(file)  # noqa: S301 - this is what the cage is for
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickle_module)


def _mlmodel(folder: Path) -> dict[str, Any]:
    try:
        configuration = yaml.safe_load((folder / "MLmodel").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        configuration = None
    if not isinstance(configuration, dict) or not isinstance(configuration.get("flavors"), dict):
        raise RefusedError(f"{folder.name} is a folder without a readable MLmodel", "give a file, or a folder that MLflow wrote")
    return configuration


def _in_folder(folder: Path, configuration: dict[str, Any]) -> Any:
    flavors = configuration["flavors"]
    for flavor in flavors.values():
        if flavor.get("code"):
            sys.path.insert(0, str(folder / flavor["code"]))
    if "pytorch" in flavors:
        return _pytorch_flavor(folder / flavors["pytorch"]["model_data"])
    if "python_model" in flavors.get("python_function", {}):
        return _python_model(folder)
    raise RefusedError(f"MLflow's flavors {sorted(flavors)} hold no torch module that can be judged", "log the model with mlflow.pytorch")


def _pytorch_flavor(data: Path) -> Any:
    """As mlflow.pytorch.load_model, but in the mode that the module was saved in."""
    if (data / "model.pt2").exists():
        raise RefusedError("the MLflow model is an exported program, which needs no trust", f"give {data.name}/model.pt2 itself")
    info = data / "pickle_module_info.txt"
    return _in_file(data / "model.pth", importlib.import_module(info.read_text().strip()) if info.exists() else pickle)


def _python_model(folder: Path) -> Any:
    """The one module that a pickled Python model holds, once its context is loaded."""
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(folder)).unwrap_python_model()
    modules = {name: value for name, value in vars(model).items() if isinstance(value, nn.Module)}
    if len(modules) != 1:
        raise RefusedError(f"the Python model {type(model).__name__} holds {len(modules)} torch modules; one is expected",
                           "log the module itself with mlflow.pytorch")
    return next(iter(modules.values()))


def _own_example(path: Path, configuration: dict[str, Any], module: nn.Module) -> Call:
    if not configuration.get("saved_input_example_info"):
        raise NO_EXAMPLE
    from mlflow.models import Model

    example = Model.load(str(path)).load_input_example(str(path))
    if hasattr(example, "to_numpy"):  # a table of features, which MLflow gives to a torch module as 32-bit floats
        example = example.to_numpy(dtype="float32")
    kind = next((tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()), torch.get_default_dtype())
    return as_call(_tensors(example, kind))


def _tensors(value: Any, kind: torch.dtype) -> Any:
    """JSON knows one kind of number with a point, so those take the module's."""
    if isinstance(value, dict):
        return {name: _tensors(item, kind) for name, item in value.items()}
    tensor = torch.as_tensor(value)
    return tensor.to(kind) if tensor.is_floating_point() else tensor
