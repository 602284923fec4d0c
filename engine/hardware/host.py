"""What the host has to give: memory, processors, room on disks. Read without torch.

Containers narrow all three without hiding the whole machine from a naive look: the narrower figure counts.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30

# psutil is loaded by the first reading: the screen's first frame waits for every module that is imported before.


@dataclass(frozen=True)
class HostMemory:
    """Host memory in GiB.

    Attributes:
        used: what is not available to new work.
        total: in a container its own limit, where that is the narrower one (``limited``).
        process: this process's share.
        swap: swap space in all, ``swap_free`` of it unused.
    """

    used: float
    total: float
    process: float
    swap: float
    swap_free: float
    limited: bool

    @property
    def free(self) -> float:
        """What new work may take."""
        return max(self.total - self.used, 0.0)


def read_memory() -> HostMemory:
    """Host memory now."""
    import psutil

    used, total, process, limited = _memory()
    swap = psutil.swap_memory()
    return HostMemory(used, total, process, swap.total / GIB, swap.free / GIB, limited)


def host_memory() -> tuple[float, float, float]:
    """Host memory used (what is not available to new work), total, and this process's share, in GiB.

    In a container its own limit counts where it is the narrower one.
    """
    return _memory()[:3]


def _memory() -> tuple[float, float, float, bool]:
    """Used, total, this process's, in GiB, and whether a container's limit is what counts."""
    import psutil

    memory = psutil.virtual_memory()
    process = psutil.Process(os.getpid()).memory_info().rss
    used, total, limited = memory.total - memory.available, memory.total, False
    for folder in control_groups():
        limit = container_limit(folder)
        if limit is not None and limit[1] - limit[0] < total - used:
            used, total, limited = *limit, True
    return used / GIB, total / GIB, process / GIB, limited


def control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Folders of the control groups (v2) that this process is in, its own first and the root last.

    In a container the root is its own group; under a job scheduler or systemd each level may set a limit.
    """
    try:
        told = own.read_text().splitlines()
    except OSError:
        told = []
    path = next((line.removeprefix("0::") for line in told if line.startswith("0::")), "/")
    group = root / path.strip().lstrip("/")
    return [group, *(each for each in group.parents if each.is_relative_to(root))]


def container_limit(group: Path) -> tuple[int, int] | None:
    """Bytes used and allowed by the memory limit of a control group; None where there is none.

    File cache counts as free: the kernel gives it up before it kills.
    """
    try:
        allowed = (group / "memory.max").read_text().strip()
        current = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not allowed.isdigit():
        return None
    return current - int(stat.get("inactive_file", 0)), int(allowed)


def usable_cores() -> int:
    """Processors that this process may keep busy: its affinity, narrowed by the quotas of containers."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return min(cores, *(_quota(group) or cores for group in control_groups()))


def _quota(group: Path) -> int:
    """Whole processors that a control group may keep busy, one at least; 0 where it sets no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return 0
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return 0
    return max(1, int(quota) // int(period))


def free_disk_gb(folder: Path) -> float | None:
    """GiB free to this user where ``folder`` is or would be made; None where no part of its path can be read."""
    standing = standing_parent(folder)
    if standing is None:
        return None
    try:
        return shutil.disk_usage(standing).free / GIB
    except OSError:
        return None


def on_one_disk(first: Path, second: Path) -> bool:
    """Whether two folders, which need not exist yet, take their room from the same disk."""
    places = [standing_parent(first), standing_parent(second)]
    devices = {None if place is None else place.stat().st_dev for place in places}
    return len(devices) == 1


def standing_parent(folder: Path) -> Path | None:
    """``folder`` if it exists, else the nearest folder above it that does."""
    whole = folder.absolute()
    for place in (whole, *whole.parents):
        try:
            if place.is_dir():
                return place
        except OSError:  # a name too long, a link to itself, no permission to look
            continue
    return None
