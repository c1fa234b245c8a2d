"""Runs one command where it can reach nothing and change nothing: Linux namespaces, no rights, limits.

A program of its own (`python -I cage.py SPEC`), since a process with threads cannot enter a user namespace; the standard
library alone, since nothing else has to be trusted then. It becomes three processes: this one, which waits outside; the first
one of a PID namespace, which watches memory and whose end is the end of all others, however they hide; and the command.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY = 65534
NAMELESS = range(61184, 65520)
"""Users that no program of the host is: the limit on processes counts all of one user's. (systemd's dynamic users.)"""
SCRATCH = "/scratch"
"""Where the command starts and may write: memory that is gone with the cage."""
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR = -100, 0x8000, 1 | 2 | 4
"""Attributes: read-only, no set-user-id programs, no devices."""
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITY_VERSION_3 = 0x20080522
SYS_MOUNT_SETATTR = 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
WATCH_SECONDS = 0.05

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Spec:
    """A command and its cage. Passed as JSON, file descriptors by inheritance."""

    command: list[str]
    environment: dict[str, str]
    readable: dict[str, str]
    """Path in the cage: the host's file or folder that is shown there, read-only."""
    root: str
    """An empty folder of the host's, on which the cage's own root is mounted."""
    answer: int
    """Descriptor to which the command may write."""
    status: int
    """Descriptor to which the cage says how it went, a JSON object a line. The command does not have it."""
    memory_bytes: int
    """Of each process by address space, and of all together by what is resident."""
    scratch_bytes: int
    cpu_seconds: int
    file_bytes: int
    processes: int


def main(spec: Spec) -> int:
    os.set_inheritable(spec.status, False)
    _die_with_parent()
    try:
        _separate()
    except OSError as error:
        return _say(spec, refused=str(error))
    outside = os.getpid()
    first = os.fork()
    if first == 0:
        _first_process(spec, outside)
    os.waitpid(first, 0)
    return 0


def _say(spec: Spec, **what: Any) -> int:
    os.write(spec.status, json.dumps(what).encode() + b"\n")
    return 0


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _die_with_parent() -> None:
    _checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def _separate() -> None:
    """Leaves the namespaces of the host; others than root need one of users for that, in which they are nobody."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _checked(libc.unshare(NAMESPACES), "unshare as root")
        return
    _checked(libc.unshare(CLONE_NEWUSER | NAMESPACES), "unshare with a user namespace")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        Path("/proc/self", name).write_text(line)


def _first_process(spec: Spec, outside: int) -> None:
    """Does not return. `outside`: this cage's number among those of the host."""
    code = 1
    try:
        _die_with_parent()
        _build_view(spec)
        command = os.fork()
        if command == 0:
            _become(spec, outside)
        code = _say(spec, **_watch(command, spec.memory_bytes))
    except OSError as error:
        code = _say(spec, refused=str(error))
    finally:
        os._exit(code)


def _watch(command: int, memory_bytes: int) -> dict[str, Any]:
    """How the command ended. Reaps what it left behind, and ends it when all together hold too much memory."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == command:
            return {"exit": os.waitstatus_to_exitcode(status)}
        if _resident() > memory_bytes:
            return {"memory": True}
        if pid == 0:
            time.sleep(WATCH_SECONDS)


def _resident() -> int:
    """Bytes of memory that the cage's processes hold, this one left out."""
    pages = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                pages += int(Path("/proc", name, "statm").read_text().split()[1])
            except (OSError, IndexError):  # it has just ended
                continue
    return pages * resource.getpagesize()


def _build_view(spec: Spec) -> None:
    """A root of its own: the readable folders, four devices, the cage's own processes, and memory to write to."""
    os.umask(0o022)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", spec.root, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")
    for inside, host in sorted(spec.readable.items()):
        _show(host, spec.root + inside)
    for name in ("null", "zero", "random", "urandom"):
        _show(f"/dev/{name}", f"{spec.root}/dev/{name}", device=True)
    for folder, size in ((SCRATCH, spec.scratch_bytes), ("/dev/shm", spec.scratch_bytes // 8)):  # noqa: S108 - the cage's own
        os.makedirs(spec.root + folder)
        _mount("tmpfs", spec.root + folder, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode=1777")
    os.mkdir(f"{spec.root}/proc")
    _mount("proc", f"{spec.root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(spec.root)
    _checked(libc.syscall(SYS_PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", MNT_DETACH), "umount of the host's root")
    _mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(SCRATCH)


def _show(host: str, inside: str, device: bool = False) -> None:
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    if os.path.isdir(host):
        os.makedirs(inside, exist_ok=True)
    else:
        Path(inside).touch()
    _mount(host, inside, None, MS_BIND | MS_REC)
    if not device:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR, 0, 0, 0)
        done = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(inside), AT_RECURSIVE, attributes, ctypes.sizeof(attributes))
        _checked(done, f"making {host} read-only")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    done = libc.mount(os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags), data.encode())
    _checked(done, f"mount of {kind or source} on {target}")


def _become(spec: Spec, outside: int) -> None:
    """Turns this process into the command, without any right. Does not return."""
    try:
        os.setsid()
        _limit(spec)
        _drop_rights(outside)
        os.set_inheritable(spec.answer, True)
        os.execve(spec.command[0], spec.command, spec.environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        _say(spec, refused=str(error))
    finally:
        os._exit(1)


def _limit(spec: Spec) -> None:
    limits = {resource.RLIMIT_AS: spec.memory_bytes, resource.RLIMIT_CPU: spec.cpu_seconds, resource.RLIMIT_FSIZE: spec.file_bytes,
              resource.RLIMIT_NPROC: spec.processes, resource.RLIMIT_NOFILE: 1024, resource.RLIMIT_CORE: 0}
    for kind, wanted in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))


def _drop_rights(outside: int) -> None:
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the kernel knows no more of them
    if os.geteuid() == 0:
        user = NAMELESS[outside % len(NAMELESS)]
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    _checked(libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()), "capset")
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


if __name__ == "__main__":
    sys.exit(main(Spec(**json.loads(sys.argv[1]))))
