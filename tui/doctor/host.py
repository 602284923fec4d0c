"""Host memory, processors, and room where caches and runs go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.hardware.host import HostMemory
from engine.text import safe_text
from tui.doctor.finding import Finding

LITTLE_RAM_GB = 16.0
"""Free host memory below which cards that stream FLUX.1 are short: its blocks are 8.6 GB in 8 bit, 17.2 in bf16."""

LEAST_RAM_GB = 6.0
"""Free host memory below which text encoders and checkpoints no longer pass through."""

SWAP_FROM_GB = 48.0
"""Host memory in all from which on a machine does well without swap."""

CACHE_GB, LEAST_CACHE_GB = 30.0, 3.0
"""Room for caches: a packed base is 6 to 12 GB, a caption 4 MB, a picture half a MB."""

RUNS_GB, LEAST_RUNS_GB = 10.0, 1.0
"""Room for runs: LoRA files and states that can be resumed, 0.1 to 3 GB each."""


@dataclass(frozen=True)
class Place:
    """A folder that a run writes to.

    Attributes:
        name: what goes there.
        free_gb: None where it cannot be read.
        writable: whether it, or the folder it would be made in, can be written to.
        network: the type of the network file system it is on; empty on a local disk.
    """

    name: str
    path: Path
    free_gb: float | None
    writable: bool
    enough_gb: float
    least_gb: float
    network: str = ""


@dataclass(frozen=True)
class Host:
    """What was read of the host; ``wsl`` is Linux inside Windows."""

    memory: HostMemory
    cores: int
    all_cores: int
    places: Sequence[Place]
    one_disk: bool
    wsl: bool = False


def host_findings(read: Host) -> list[Finding]:
    """Findings on memory, processors and disks."""
    return [*_memory(read), _cores(read), *map(_place, read.places), *_shared(read), *_network(read)]


def _memory(read: Host) -> list[Finding]:
    memory = read.memory
    found = [_free(memory)]
    if memory.limited:
        found.append(
            Finding(
                "host", "container", "ok", f"it allows {memory.total:.1f} GB, and that counts here",
                "What a run takes beyond it ends the run without a word.",
            )
        )  # fmt: skip
    found.append(_swap(memory))
    if read.wsl:
        found.append(
            Finding(
                "host", "WSL", "warn", "Linux inside Windows",
                "Windows lets only half of the memory be pinned, and spills the card's memory into the host's where "
                "it is short: steps then take many times longer instead of failing.",
                "In the NVIDIA control panel set CUDA's system memory fallback to off; give WSL more memory in "
                ".wslconfig.",
            )
        )  # fmt: skip
    return found


def _free(memory: HostMemory) -> Finding:
    what = f"{memory.free:.1f} of {memory.total:.1f} GB free"
    why = "Weights that do not fit the card are streamed from host memory: 8.6 GB in 8 bit, 17.2 GB in bf16."
    if memory.free < LEAST_RAM_GB:
        return Finding("host", "memory", "bad", what, why, "Close other programs, or add memory: 32 GB are usual.")
    if memory.free < LITTLE_RAM_GB:
        return Finding("host", "memory", "warn", what, why, "Close other programs before a run that streams.")
    return Finding("host", "memory", "ok", what)


def _swap(memory: HostMemory) -> Finding:
    if memory.swap >= 0.5:
        return Finding("host", "swap", "ok", f"{memory.swap_free:.1f} of {memory.swap:.1f} GB free")
    if memory.total >= SWAP_FROM_GB:
        return Finding("host", "swap", "ok", "none, and memory enough to do without")
    return Finding(
        "host", "swap", "warn", "none", "When memory runs out for a moment, the system ends the run at once.",
        "Add a swap file of 16 GB, where the system is yours to change.",
    )  # fmt: skip


def _cores(read: Host) -> Finding:
    what = f"{read.cores} usable" + (f" of {read.all_cores}" if read.cores < read.all_cores else "")
    if read.cores >= 4:
        return Finding("host", "processors", "ok", what)
    return Finding(
        "host", "processors", "warn", what, "Reading pictures and filling caches takes longer; training does not.",
        "Allow this program more of them, if there are.",
    )  # fmt: skip


def _place(place: Place) -> Finding:
    folder = safe_text(place.path, 300)
    if not place.writable:
        return Finding(
            "disk", place.name, "bad", f"{folder} cannot be written to", "Nothing can be kept there.",
            "Choose another folder in the run's configuration, or change who may write to it.",
        )  # fmt: skip
    if place.free_gb is None:
        return Finding(
            "disk", place.name, "warn", f"how much room there is at {folder} cannot be read",
            do="See whether that disk answers at all.",
        )  # fmt: skip
    what = f"{place.free_gb:.1f} GB free at {folder}"
    if place.free_gb < place.enough_gb:
        return Finding(
            "disk", place.name, "bad" if place.free_gb < place.least_gb else "warn", what,
            f"A run with FLUX.1 wants up to {place.enough_gb:.0f} GB there; a full disk pauses it.",
            "Free some, or choose another folder in the run's configuration.",
        )  # fmt: skip
    return Finding("disk", place.name, "ok", what)


def _shared(read: Host) -> list[Finding]:
    if not read.one_disk or len(read.places) < 2:
        return []
    return [Finding("disk", "one disk", "ok", "caches and runs take their room from the same one")]


def _network(read: Host) -> list[Finding]:
    return [
        Finding(
            "disk", place.name, "warn", f"on a network disk ({place.network})",
            "Locks may bind one machine only there, and a rename may be seen late by others.",
            "Let only one machine train in a folder, or keep it on a local disk.",
        )
        for place in read.places
        if place.network
    ]  # fmt: skip
