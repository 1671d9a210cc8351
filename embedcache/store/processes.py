"""Who a process is, and whether it lives: what locks, leases and temporary files are named by; a child's environment."""

import hashlib
import os
import socket
from pathlib import Path

import embedcache


def child_environment(**more: str) -> dict[str, str]:
    """This process's variables and `more`, for a child python that must find this package wherever this process found it."""
    paths = [str(Path(embedcache.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), **more}


def this_host() -> str:
    """A name for this machine and boot and process namespace: pids mean something only within it."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text().strip()[:8])
    if os.path.exists("/proc/self/ns/pid"):
        parts.append(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    return "/".join(parts)


def process_start(pid: int) -> str:
    """When process `pid` began, in the kernel's own units; "" if it is gone or the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat[stat.rindex(")") + 2 :].split()
    return "" if state == "Z" else fields[18]


def lives(host: str, pid: int, start: str) -> bool | None:
    """Whether a process of this host lives; None for one of another host, of which nothing can be known here."""
    if host != this_host():
        return None
    if os.path.isdir("/proc/self"):
        return process_start(pid) == start != ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def own_token() -> str:
    """This process as a folder name: host, pid and start."""
    return f"{_host_token()}-{os.getpid()}-{process_start(os.getpid())}"


def token_is_dead(token: str) -> bool:
    """Whether `token` names a process of this host that is gone. A foreign name is never called dead."""
    host, _, rest = token.partition("-")
    pid, _, start = rest.partition("-")
    return host == _host_token() and pid.isdigit() and lives(this_host(), int(pid), start) is False


def _host_token() -> str:
    return hashlib.sha256(this_host().encode()).hexdigest()[:8]
