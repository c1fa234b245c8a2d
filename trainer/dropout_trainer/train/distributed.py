"""The processes that train one model together, and what they tell each other.

Of a training of one process nothing in here does anything, and torch.distributed is not imported.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dropout_api.names import ExitCode, Torchrun
from dropout_api.spec import JobSpec
from dropout_trainer.errors import StageFailure

RENDEZVOUS_SECONDS = 600.0
"""How long the first process waits for the last: pods of several nodes may start minutes apart."""
COLLECTIVE_SECONDS = 1800.0
"""How long one process may keep the others waiting, as rank 0 with a large checkpoint; one that dies is noticed at once."""
POLL_SECONDS = 0.2
SIGNS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""In the text of an error that torch raises where a peer or the way to it is gone."""
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """One process among `size`. What asks the others is a collective: each must call it, in the same order.

    A collective raises StageFailure PeerLost when another process is gone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of this node."""
    local_size: int = 1
    group: Any = field(default=None, repr=False, compare=False)
    """Of torch.distributed, for what is no gradient; None stands for its default one."""

    @staticmethod
    def of(environ: Mapping[str, str] = os.environ) -> "World":
        """As torchrun's environment says; alone without one."""
        if Torchrun.RANK not in environ:
            return World()
        names = (Torchrun.RANK, Torchrun.WORLD_SIZE, Torchrun.LOCAL_RANK, Torchrun.LOCAL_WORLD_SIZE)
        rank, size, local_rank, local_size = (int(environ[name]) for name in names)
        return World(rank, size, local_rank, local_size)

    @staticmethod
    def joined() -> "World":
        """Of the processes that a program of the user's has brought together; alone where it has not. A collective where they talk by NCCL
        alone, as a flag on the CPU then takes another way."""
        distributed = _distributed()
        if not distributed.is_available() or not distributed.is_initialized():
            return ALONE
        with peers_needed():
            beside = _beside(distributed.group.WORLD)
        return World(distributed.get_rank(), distributed.get_world_size(), group=beside)

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone has effects outside of the processes."""
        return self.rank == 0

    def part(self, rows: Tensor) -> Tensor:
        """This rank's of the row numbers of a batch; the parts of two ranks differ by one row at most."""
        return rows if self.alone else torch.tensor_split(rows, self.size)[self.rank]

    def broadcast(self, value: T | None) -> T:
        """Rank 0's `value`; what others give is not looked at."""
        if self.alone:
            return value  # type: ignore[return-value]  # rank 0 gives one
        box: list[Any] = [value if self.leads else None]
        with peers_needed():
            _distributed().broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Each rank's `value`, in order of ranks; the whole list on rank 0, an empty one elsewhere."""
        if self.alone:
            return [value]
        box: list[Any] | None = [None] * self.size if self.leads else None
        with peers_needed():
            _distributed().gather_object(value, box, dst=0, group=self.group)
        return box or []

    def sum(self, values: Tensor) -> Tensor:
        """Over ranks, of float64 [N] on the CPU, added in the order of ranks: each rank gets the same bits."""
        if self.alone:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with peers_needed():
            _distributed().all_gather(parts, values, group=self.group)
        return torch.stack(parts).sum(0)

    def largest(self, *numbers: int) -> list[int]:
        """Of each number the largest of any rank's; so a flag that one has set is set for all."""
        if self.alone:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.int64)
        with peers_needed():
            _distributed().all_reduce(values, op=_distributed().ReduceOp.MAX, group=self.group)
        return [int(value) for value in values]

    def parallel(self, model: nn.Module) -> nn.Module:
        """`model` itself, or in DistributedDataParallel, which averages gradients and hands out rank 0's weights and buffers
        (Li et al.: PyTorch Distributed, VLDB 2020, arXiv 2006.15704).

        It looks for parameters that a forward did not use: a model may leave out a layer by chance. And it then keeps its buckets as they
        are, where it would else sort them after the first step, and three ranks would add up in another order after a resumption.
        """
        if self.alone:
            return model
        from torch.nn.parallel import DistributedDataParallel

        with peers_needed():
            return DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)

    def same_buffers(self, model: nn.Module) -> None:
        """Gives rank 0's buffers, as running statistics, to all: DistributedDataParallel does so only before each forward."""
        if not self.alone:
            found = self.broadcast({name: buffer.cpu() for name, buffer in model.named_buffers()} if self.leads else {})
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    buffer.copy_(found[name])

    def require_same(self, digest: str, field: str) -> None:
        """Raises StageFailure on rank 0 when another rank has made other data of `field` of the spec."""
        for rank, other in enumerate(self.gather(digest)):
            if other != digest:
                message = f"{field}: rank {rank} has other data than rank 0; draw from the seed that is given alone"
                raise StageFailure("DataDiffers", message, ExitCode.DATA_INVALID)

    def outlast(self) -> None:
        """Where all ranks fail alike, those above 0 wait for the end of rank 0, which has more to do and to say."""
        with suppress(StageFailure):
            self.broadcast(None)

    def leave(self) -> None:
        """The last collective: rank 0 goes on alone."""
        if not self.alone:
            self.largest(0)
            _distributed().destroy_process_group()

    def watching(self) -> AbstractContextManager[object]:
        """Around what talks by itself, as a model in DistributedDataParallel."""
        return nullcontext() if self.alone else peers_needed()


ALONE = World()


def join(world: World, spec: JobSpec) -> World:
    """`world` once it can talk: by gloo on a CPU, by NCCL between GPUs with gloo beside it.

    Raises StageFailure when not all processes come within RENDEZVOUS_SECONDS, or when this node has fewer GPUs than processes.
    """
    if world.alone:
        return world
    distributed, by_nccl = _distributed(), _own_gpu(world, spec)
    store = _meet(world)
    with peers_needed():
        distributed.init_process_group(
            "nccl" if by_nccl else "gloo", store=store, rank=world.rank, world_size=world.size, timeout=_delta(COLLECTIVE_SECONDS)
        )
        beside = distributed.new_group(backend="gloo", timeout=_delta(COLLECTIVE_SECONDS)) if by_nccl else None
    return replace(world, group=beside)


@contextmanager
def peers_needed() -> Iterator[None]:
    """An error that comes of a peer's end becomes StageFailure PeerLost; others pass."""
    try:
        yield
    except RuntimeError as error:
        if not _of_a_peer(error):
            raise
        message = f"another process of this training went away, and its own end says why ({_first_line(error)})"
        raise StageFailure("PeerLost", message, ExitCode.PEER_LOST) from None


def unsynchronised(forward: nn.Module, wanted: bool) -> AbstractContextManager[object]:
    """Within it, gradients stay with this rank where that is `wanted`: only the last batch of a step needs the others'."""
    if not wanted or not hasattr(forward, "no_sync"):
        return nullcontext()
    local: AbstractContextManager[object] = forward.no_sync()  # type: ignore[operator]
    return local


def _distributed() -> Any:
    """Its package has half a type."""
    import torch.distributed

    return torch.distributed


@lru_cache(maxsize=1)
def _beside(group: Any) -> Any:
    """A group that talks from CPUs where the default `group` does not; None stands for that one. Made once: each takes threads."""
    from torch.distributed.distributed_c10d import get_backend_config

    cpu = "cpu:" in get_backend_config(group)
    return None if cpu else _distributed().new_group(backend="gloo", timeout=_delta(COLLECTIVE_SECONDS))


def _delta(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _meet(world: World) -> Any:
    """The store that all processes have come to. In short waits of python's own, as a signal is heard between them alone."""
    address, port = os.environ[Torchrun.MASTER_ADDR], int(os.environ[Torchrun.MASTER_PORT])
    deadline = time.monotonic() + RENDEZVOUS_SECONDS
    while not world.leads and not _listens(address, port):
        _pause(deadline, f"rank 0 does not listen at {address}:{port}")
    with peers_needed():
        distributed = _distributed()
        store = distributed.TCPStore(
            address, port, world.size, is_master=world.leads, wait_for_workers=False, timeout=_delta(RENDEZVOUS_SECONDS)
        )
        store.add("here", 1)
        while (here := store.add("here", 0)) < world.size:
            _pause(deadline, f"{here} of {world.size} processes are here")
    return store


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:  # among them a name that the cluster's DNS does not have yet
        return False
    return True


def _pause(deadline: float, missing: str) -> None:
    """Raises StageFailure once it is too late."""
    if time.monotonic() > deadline:
        raise StageFailure("PeerLost", f"{missing} after {RENDEZVOUS_SECONDS:.0f} s", ExitCode.PEER_LOST)
    time.sleep(POLL_SECONDS)


def _of_a_peer(error: RuntimeError) -> bool:
    kinds = tuple(getattr(_distributed(), name) for name in ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError"))
    return isinstance(error, kinds) or any(sign in str(error) for sign in SIGNS)


def _own_gpu(world: World, spec: JobSpec) -> bool:
    """Makes this process's GPU torch's current one; returns whether there is one that NCCL can use. It does not talk between MIG slices
    (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/), for which gloo carries gradients over the host."""
    if not spec.resources_per_node.gpus or not torch.cuda.is_available():
        return False
    slices, here = "MIG" in torch.cuda.get_device_name(), torch.cuda.device_count()
    if not slices and here < world.local_size:
        message = f"spec.processesPerNode is {world.local_size}, but the pod has {here} GPUs; ask for more in spec.resourcesPerNode.limits"
        raise StageFailure("SpecInvalid", message, ExitCode.SPEC_INVALID)
    torch.cuda.set_device(world.local_rank % here)
    return not slices


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]
