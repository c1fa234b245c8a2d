"""Loss, accuracy and MAE need no torchmetrics; the others need neither what it would import for plots and images, nor leave it changed."""

import subprocess
import sys

PROGRAM = """
import sys, torch
from dropout_api.candidate import Task
from dropout_api.metrics import MetricName
from dropout_trainer.metrics.measure import measure, usual

def loaded(*names):
    return sorted(name for name in names if name in sys.modules)

rows, values = torch.eye(3), torch.ones(3, 1)
of_classes, of_values = Task(outputs=3), Task(kind="Regression", outputs=1, loss="MSE", deviation=[1.0])
measure(of_classes, usual(of_classes), rows, torch.arange(3))
measure(of_values, usual(of_values), values, values)
print(loaded("torchmetrics", "lightning_utilities"))
measure(of_classes, [MetricName.F1_MACRO, MetricName.ROC_AUC_MACRO], rows, torch.arange(3))
print(loaded("torchmetrics", "matplotlib", "scipy", "torchvision", "transformers"))
from lightning_utilities.core.imports import RequirementCache, package_available
print(bool(RequirementCache("pydantic>=2")), package_available("pydantic"))
"""


def test_and_whoever_imports_it_later_gets_it_whole() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]", "True True"]
