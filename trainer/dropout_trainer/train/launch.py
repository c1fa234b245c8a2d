"""Starts the processes of a distributed training on one node, as torchrun does, and ends them together.

torchrun itself restarts workers and elects a rendezvous; here both are the operator's part, which tries a whole attempt again. So little
is left that no torch is needed: this process is small, and as a container's first one it answers SIGTERM from its first moment.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory

from dropout_api.names import NODE_RANK, RENDEZVOUS_PORT, Env, ExitCode, Stage, Torchrun
from dropout_api.report import StageError
from dropout_api.spec import JobSpec
from dropout_trainer.errors import StageFailure
from dropout_trainer.stage import hand_in, mark_of_end
from dropout_trainer.train.groups import Group, adopting

GRACE_SECONDS = 15.0
"""Between SIGTERM and SIGKILL for those whose peer has ended badly: less than the half minute that Kubernetes gives a pod."""
FORWARDED = (signal.SIGTERM, signal.SIGINT)
NVIDIA_DEVICES, CUDA_DEVICES, MIG = "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "MIG-"
KILLED = "ProcessKilled"
"""Reason in the report on a process that could not write one itself."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """A node's processes among all of a training."""

    processes: int
    """Of this node."""
    nodes: int = 1
    node: int = 0
    """This node's number, from 0."""
    address: str = "127.0.0.1"
    """Where rank 0 listens."""
    port: int = 0
    """Of rank 0; 0 stands for one that is free, on one node alone."""

    @staticmethod
    def of(spec: JobSpec, environ: Mapping[str, str] = os.environ) -> "Layout":
        """As the spec and the Job controller say. Raises StageFailure where the environment of a training of several nodes is missing."""
        if spec.nodes == 1:
            return Layout(spec.processes)
        try:
            node, port = int(environ[NODE_RANK]), int(environ.get(Torchrun.MASTER_PORT, RENDEZVOUS_PORT))
            return Layout(spec.processes, spec.nodes, node, environ[Torchrun.MASTER_ADDR], port)
        except (KeyError, ValueError):
            names = f"{NODE_RANK} and {Torchrun.MASTER_ADDR}"
            message = f"spec.nodes is {spec.nodes}, but {names} are not set here: several nodes are started by the operator, in a cluster"
            raise StageFailure("TaskInvalid", message, ExitCode.USAGE) from None

    def environment(self, local_rank: int) -> dict[str, str]:
        """What torchrun tells the process of this rank."""
        rank = self.node * self.processes + local_rank
        numbers = {
            Torchrun.RANK: rank, Torchrun.LOCAL_RANK: local_rank, Torchrun.WORLD_SIZE: self.nodes * self.processes,
            Torchrun.LOCAL_WORLD_SIZE: self.processes, Torchrun.GROUP_RANK: self.node, Torchrun.MASTER_PORT: self.port,
        }
        return {Torchrun.MASTER_ADDR.value: self.address} | {name.value: str(number) for name, number in numbers.items()}


@dataclass(frozen=True)
class Ended:
    """A process that has come to its end."""

    rank: int
    """On this node."""
    code: int
    """128 + signal where one has ended it."""
    killed: bool = False
    """By a signal."""
    ours: bool = False
    """By one of those that we sent because another had ended."""

    @property
    def to_blame(self) -> bool:
        return not self.ours and self.code not in (0, ExitCode.PEER_LOST)


def launch(argv: Sequence[str], layout: Layout) -> int:
    """Runs `argv` once for each process of this node; returns 0, or the exit code of the one that ended badly first.

    SIGTERM and SIGINT go on to all. When one ends badly the others get SIGTERM and, after GRACE_SECONDS, SIGKILL; when this process dies,
    SIGKILL at once. One has ended when nothing is left of its process group. That one has lost its peer counts only when no other reason
    is found. Each writes its report into a file of its own, and that of the one whose code is returned becomes the pod's; of several that
    end well, local rank 0's. Raises StageFailure when `argv` cannot be started.
    """
    with TemporaryDirectory(prefix="ranks-") as folder:
        gang = _Gang(Path(folder))
        with _noted(gang.events.put), adopting():
            try:
                gang.start(argv, layout)
            except OSError as error:
                gang.end_with(signal.SIGKILL)
                message = f"spec.command: {argv[0]} cannot be started: {error.strerror}; is it in spec.image?"
                raise StageFailure("UserCode", message, ExitCode.USER_CODE) from None
            gang.see_through()
        told = gang.verdict()
        report = gang.report(told.rank)
        if report.exists():
            hand_in(report.read_text(encoding="utf-8"))
        elif told.killed:
            hand_in(_killed(told, layout).to_json())
        return told.code


@dataclass
class _Gang:
    folder: Path
    """For the reports."""
    events: "SimpleQueue[Ended | signal.Signals]" = field(default_factory=SimpleQueue)
    """Its put() may be called from a signal's handler."""
    groups: list[Group] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    sent: set[int] = field(default_factory=set)
    """Signals that we sent because one had ended badly."""
    asked: bool = False
    """Whether a signal has come from outside."""

    def start(self, argv: Sequence[str], layout: Layout) -> None:
        layout = layout if layout.port else Layout(layout.processes, layout.nodes, layout.node, layout.address, _free_port())
        for rank in range(layout.processes):
            own = {Env.TERMINATION_LOG.value: str(self.report(rank))} | _slice_of(rank, layout.processes, os.environ)
            environment = {**os.environ, **layout.environment(rank), **own}
            self.groups.append(Group.start(argv, environment))
        for rank, group in enumerate(self.groups):
            threading.Thread(target=self._wait, args=(rank, group), name=f"rank-{rank}", daemon=True).start()

    def _wait(self, rank: int, group: Group) -> None:
        code = group.leader.wait()
        if code == -signal.SIGABRT and mark_of_end(self.report(rank)).exists():
            code = 0  # threads of torch.distributed met the interpreter's end, and nothing was lost
        if code and group.is_left():  # one that did not hear it, or the workers of one that crashed
            group.tell(signal.SIGTERM)
        by_order = self.asked and code == -signal.SIGTERM
        group.outlived(None if by_order else GRACE_SECONDS)
        if by_order:  # a shell knows less than the program that it has left behind
            code = next((other for other in group.codes if other), code)
        self.events.put(Ended(rank, code if code >= 0 else 128 - code, killed=code < 0))

    def see_through(self) -> None:
        """Until all have ended."""
        deadline: float | None = None
        while len(self.ended) < len(self.groups):
            try:
                event = self.events.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except Empty:
                self.end_with(signal.SIGKILL)
                deadline = None
                continue
            if isinstance(event, signal.Signals):
                self.asked = True
                self._tell(event)
                continue
            self.ended.append(self._attributed(event))
            if event.code and deadline is None and signal.SIGKILL not in self.sent:
                agreed = event.code == ExitCode.PREEMPTED  # by all, and one is still saving
                if not agreed:
                    self.end_with(signal.SIGTERM)
                if not (agreed and self.asked):  # else the pod's own grace ends it
                    deadline = time.monotonic() + GRACE_SECONDS

    def _attributed(self, event: Ended) -> Ended:
        return Ended(event.rank, event.code, event.killed, ours=event.code - 128 in self.sent)

    def end_with(self, number: signal.Signals) -> None:
        self.sent.add(number)
        self._tell(number)

    def _tell(self, number: signal.Signals) -> None:
        ended = {one.rank for one in self.ended}
        for rank, group in enumerate(self.groups):
            if rank not in ended:
                group.tell(number)

    def verdict(self) -> Ended:
        """The one whose end is the node's. One that has saved knows more than one that a signal has ended by itself, as between two
        trials or after the last step."""
        bad = [ended for ended in self.ended if ended.code]
        blamed = [ended for ended in bad if ended.to_blame]
        first = next(iter(blamed or bad), Ended(rank=0, code=0))
        saved = next((ended for ended in blamed if ended.code == ExitCode.PREEMPTED), first)
        return saved if first.code - 128 in FORWARDED else first

    def report(self, rank: int) -> Path:
        return self.folder / f"{rank}.json"


def _killed(told: Ended, layout: Layout) -> StageError:
    name, rank = signal.Signals(told.code - 128).name, layout.node * layout.processes + told.rank
    message = f"the process of rank {rank} was ended by {name}"
    if name == "SIGKILL":
        message += "; if nobody sent it, its memory ran out: raise memory in spec.resourcesPerNode.limits"
    log.error("%s: %s", KILLED, message)
    return StageError(stage=Stage.TRAIN.value, reason=KILLED, message=message)


@contextmanager
def _noted(note: Callable[[signal.Signals], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, lambda number, _: note(signal.Signals(number))) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _slice_of(local_rank: int, processes: int, environ: Mapping[str, str]) -> dict[str, str]:
    """CUDA shows a process one MIG slice at most, so each is given its own
    (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/)."""
    slices = [name for name in environ.get(NVIDIA_DEVICES, "").split(",") if name.startswith(MIG)]
    return {CUDA_DEVICES: slices[local_rank]} if len(slices) >= processes > 1 and CUDA_DEVICES not in environ else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
