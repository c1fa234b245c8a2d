"""What may import what, and where no `__init__.py` may be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("crds", "operator", "trainer")


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={"PATH": "", "PYTHONPATH": ":".join(PACKAGES)},
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["operator", "trainer", "tests", "crds"])
def test_a_folder_of_packages_is_no_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_no_test_folder_is_a_package_or_named_operator() -> None:
    folders = [path for path in (ROOT / "tests").rglob("*") if path.is_dir() and "support" not in path.parts]

    assert [path for path in folders if (path / "__init__.py").exists() or path.name == "operator"] == []


def test_no_two_test_files_have_one_name() -> None:
    files = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert sorted(files) == sorted(set(files))


def test_the_version_stands_alone_in_its_file() -> None:
    text = (ROOT / "crds/dropout_api/_version.py").read_text()

    assert re.fullmatch(r'__version__ = "\d+\.\d+\.\d+"\n', text)


@pytest.mark.parametrize("package", ["crds/dropout_api", "operator/dropout_operator", "trainer/dropout_trainer"])
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


PURE = ["dropout_operator.planning", "dropout_operator.manifests", "dropout_operator.diagnosis", "dropout_api.crd"]


@pytest.mark.parametrize("module", PURE)
def test_what_decides_loads_nothing_that_talks(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'kopf', 'mlflow', 'aiohttp', 'torch', 'numpy'}} & set(sys.modules)))"
    path = ":".join(str(ROOT / folder) for folder in PACKAGES)

    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60)

    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
