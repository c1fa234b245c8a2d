"""The cluster script, run on a home of its own; and what of the machine a run must leave as it was."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "hack/cluster/cluster"
PROGRAMS = Path(os.environ.get("CLUSTER_BIN", Path.home() / ".cache/dropout-operator/cluster/bin"))
PORTS = {53, 2379, 2380, 6443, 10248, 10249, 10250, 10256, 10257, 10259, 30080}
NAMES = {"containerd", "containerd-shim", "coredns", "kube-controller", "kube-proxy", "kube-scheduler", "kubelet", "pause"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: starts the one cluster that a machine has room for; none may be up")


@dataclass
class Cluster:
    home: Path
    programs: Path = PROGRAMS

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CLUSTER_HOME": str(self.home), "CLUSTER_BIN": str(self.programs)}
        return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=200)

    def succeed(self, *arguments: str) -> str:
        done = self(*arguments)
        assert done.returncode == 0, f"cluster {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        command = [self.programs / "kubectl", "--kubeconfig", self.home / "state/admin.kubeconfig", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def with_programs(self, programs: Path) -> "Cluster":
        return replace(self, programs=programs)

    def machine(self) -> dict[str, set[str]]:
        return machine(self.home)

    def left_behind(self, before: dict[str, set[str]]) -> dict[str, set[str]]:
        return left_behind(before, self.home)


def skip_where_a_cluster_is_up() -> None:
    """Never touch another's: its user may be in the middle of something."""
    with socket.socket() as probe:
        answers = probe.connect_ex(("127.0.0.1", 6443)) == 0
    if answers or Path("/sys/class/net/dropout0").exists():
        pytest.skip("a cluster is up already (port 6443 answers, or dropout0 exists): run 'hack/cluster/cluster down' when nobody uses it")


@pytest.fixture(autouse=True)
def nobody_elses_cluster(cluster: Cluster) -> None:
    """Asked again before each test: somebody may have started one since the first."""
    skip_where_a_cluster_is_up()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("the cluster needs Linux and root")
    skip_where_a_cluster_is_up()
    home = Path(tempfile.mkdtemp(prefix="cluster-"))
    made = Cluster(home)
    made.succeed("build")
    image = subprocess.run([SCRIPT.with_name("base-image")], capture_output=True, text=True)
    assert image.returncode == 0, image.stderr
    try:
        yield made
    finally:
        made.succeed("clean")
        shutil.rmtree(home, ignore_errors=True)


def lines(*command: str) -> set[str]:
    return set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())


def processes(home: Path) -> set[str]:
    """The cluster's processes and its pods'. Others come and go on a machine at any time."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (directory / "cgroup").read_text()
            name = (directory / "comm").read_text().strip()
        except OSError:
            continue
        if f"{home}/state" in command or "kubepods" in groups or name in NAMES:
            found.add(f"{directory.name} {name}")
    return found


def settings() -> set[str]:
    """Kernel settings, less the figures among them that the kernel itself keeps changing."""
    moving = ("nf_conntrack_count", "kernel.random.", "fs.", "kernel.ns_last_pid", "kernel.pty.nr", "kernel.perf")
    return {line for line in lines("sysctl", "-a") if not any(word in line for word in moving)}


def entries() -> set[str]:
    """What lies where container programs have paths built in. /run/containers is buildah's."""
    roots = ["/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet", "/etc/cni", "/etc/containerd", "/opt", "/usr/libexec"]
    return {line for line in lines("find", *roots, "-maxdepth", "2") if not line.startswith("/run/containers")}


def machine(home: Path) -> dict[str, set[str]]:
    return {
        "processes": processes(home),
        "mounts": {line for line in lines("awk", "{ print $2, $3 }", "/proc/mounts") if not line.startswith("/var/lib/containers")},
        "network namespaces": lines("lsns", "--type", "net", "--noheadings", "--output", "NS"),
        "links": lines("sh", "-c", "ip -oneline link show | cut -d: -f2"),
        "addresses": lines("ip", "-brief", "address"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "nftables": lines("nft", "--stateless", "list", "ruleset"),
        "cgroups": lines("find", "/sys/fs/cgroup", "-maxdepth", "2", "-type", "d"),
        "settings": settings(),
        "entries": entries(),
        "ports": {str(port) for port in PORTS if lines("ss", "-Hltun", f"sport = :{port}")},
    }


def left_behind(before: dict[str, set[str]], home: Path) -> dict[str, set[str]]:
    """What differs from before. A few seconds are allowed: the kernel takes a killed process's namespaces down in its own time."""
    end = time.monotonic() + 5
    while True:
        now = machine(home)
        different = {what: before[what] ^ now[what] for what in before if before[what] != now[what]}
        if not different or time.monotonic() > end:
            return different
        time.sleep(0.2)
