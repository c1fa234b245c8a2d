"""`make demo`: the main job, on a real cluster, with what a user would look at on the way.

Installs the chart, applies crds/samples/digits-cnn.yaml, shows it while it works, and ends with the registered version, the
run's page and the losses as Prometheus returned them. CLUSTER=current takes the current kubectl context instead of hack/cluster.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from dropout_testing import cluster  # noqa: E402 - found by the line above
from dropout_testing.prometheus import Prometheus, available, prometheus  # noqa: E402

NAMESPACE, SAMPLE = "dropout-demo", "digits-cnn"
LOCAL = os.environ.get("CLUSTER", "local") == "local"
SECONDS = 600
console = Console()


def main() -> int:
    """Exit code 0 when the job succeeded, 1 when it did not, 69 when something that the demo needs is not there."""
    if LOCAL:
        os.environ["KUBECONFIG"] = cluster.run("hack/cluster/cluster", "kubeconfig").strip()
    try:
        cluster.kubectl("get", "--raw", "/readyz", seconds=15)
    except AssertionError as error:
        console.print(f"[red]no cluster answers:[/] {error}")
        return 69
    step("installing the chart", install)
    job = step(f"applying crds/samples/{SAMPLE}.yaml in namespace {NAMESPACE}", apply)
    with tempfile.TemporaryDirectory() as folder:
        if not available():
            console.print("Prometheus is not installed here, so its part is left out")
            status, numbers = follow(job), {}
        else:
            with prometheus(Path(folder)) as server:
                status = follow(job, server)
                numbers = as_prometheus_has_them(server) if status["phase"] == "Succeeded" else {}
    tell(status, numbers)
    return 0 if status["phase"] == "Succeeded" else 1


def step(what: str, work: Any) -> Any:
    began = time.monotonic()
    with console.status(f"{what} …"):
        result = work()
    console.print(f"[green]✓[/] {what} [dim]({time.monotonic() - began:.0f} s)[/]")
    return result


def install() -> None:
    if LOCAL:
        cluster.install()
        return
    repository, tag = os.environ.get("IMAGE_REPOSITORY", "localhost"), os.environ.get("IMAGE_TAG", "dev")
    images: list[str] = []
    for name in ("operator", "trainer"):
        images += ["--set", f"images.{name}.repository={repository}/dropout-{name}", "--set", f"images.{name}.tag={tag}"]
    command = ["helm", "upgrade", "--install", cluster.RELEASE, "charts/dropout-operator", "-n", cluster.OPERATOR_NAMESPACE]
    cluster.run(*command, "--create-namespace", "--wait", "--timeout", "10m", *images, seconds=660)


def apply() -> cluster.TrainingJob:
    if not cluster.get("namespace", NAMESPACE, ""):
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    cluster.kubectl("delete", "dtj", SAMPLE, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground")
    return cluster.apply_sample(SAMPLE, NAMESPACE)


def follow(job: cluster.TrainingJob, server: Prometheus | None = None) -> dict[str, Any]:
    """Shows the job until its end. Gives its status."""
    end = time.monotonic() + SECONDS
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            status = job.status
            live.update(picture(job, status, server))
            closed = job.condition("RunClosed").get("status") == "True" or "run" not in status
            if (status.get("phase") in cluster.TERMINAL and closed) or time.monotonic() > end:
                return status
            time.sleep(1.0)  # the pace of the picture


def picture(job: cluster.TrainingJob, status: dict[str, Any], server: Prometheus | None) -> Table:
    """What `kubectl get dtj` shows, and beside it the gap as Prometheus has it now."""
    progress = status.get("progress", {})
    metrics = progress.get("metrics", {})
    caption = status.get("message", "").splitlines()[:1]
    names = ("job", "phase", "epoch", "train", "val", "gap", "in Prometheus")
    table = Table(*names, caption=caption[0] if caption else None, caption_justify="left")
    live_gap = server.value(f'dropout_val_gap{{pod_namespace="{NAMESPACE}"}}') if server else None
    epoch = f"{progress['epoch']}/{progress['epochs']}" if progress else ""
    losses = (number(metrics.get(name)) for name in ("train_loss", "val_loss", "val_gap"))
    table.add_row(job.name, str(status.get("phase", "")), epoch, *losses, number(live_gap))
    return table


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def as_prometheus_has_them(server: Prometheus) -> dict[str, float]:
    """The operator's final series for the job, once Prometheus has scraped them."""
    def scraped() -> dict[str, float]:
        names = ("train_loss", "val_loss", "val_gap")
        found = {name: server.value(f'dropout_job_{name}{{namespace="{NAMESPACE}",name="{SAMPLE}"}}') for name in names}
        done = server.value(f'dropout_job_info{{namespace="{NAMESPACE}",name="{SAMPLE}",phase="Succeeded"}}')
        complete = {name: value for name, value in found.items() if value is not None}
        return complete if done and len(complete) == len(names) else {}

    found: dict[str, float] = cluster.eventually("Prometheus to have the final values", scraped, 60)
    return found


def tell(status: dict[str, Any], numbers: dict[str, float]) -> None:
    """The end, for people: one line for each thing, so that a URL or a command can be copied whole."""
    for name, value in [*outcome(status), *ways_in(status)]:
        console.print(f"[bold]{name:>14}[/]  {value}", soft_wrap=True, highlight=False)
    for name, value in numbers.items():
        console.print(f"[bold]{name.replace('_', ' '):>14}[/]  {value:.4f}, as Prometheus returned it", highlight=False)


def outcome(status: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("phase", status.get("phase", "unknown"))]
    if "failure" in status:
        lines.append(("failure", f"{status['failure']['reason']}: {status['failure']['message']}"))
    if "model" in status:
        lines.append(("model", f"{status['model']['name']} version {status['model']['version']}"))
        lines.append(("test accuracy", f"{status['progress']['metrics']['test_accuracy']:.4f}, measured by the verifier"))
    return lines


def ways_in(status: dict[str, Any]) -> list[tuple[str, str]]:
    """The run's page and how to sign in."""
    if "run" not in status:
        return []
    namespace, lines = cluster.OPERATOR_NAMESPACE, [("run", status["run"]["url"])]
    if LOCAL:
        lines.append(("kubectl", f"export PATH={os.environ['CLUSTER_BIN']}:$PATH KUBECONFIG={os.environ['KUBECONFIG']}"))
    else:
        lines.append(("", f"after: kubectl port-forward -n {namespace} service/{cluster.MLFLOW_SERVICE} 5000"))
    password = f"kubectl get secret -n {namespace} {cluster.MLFLOW_ADMIN_SECRET} -o 'go-template={{{{.data.password | base64decode}}}}'"
    return [*lines, ("sign in", f"admin, with the password of: {password}")]


if __name__ == "__main__":
    sys.exit(main())
