"""What kind of file system a folder lies on: on some networks neither locks nor renames are what they promise."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "davfs"}
"""Types on which a lock may bind only one machine, and a rename may be seen late or half by others."""


def network_type(path: Path) -> str:
    """The type of the network file system that ``path`` is or would be on; "" for a local disk or where unknown."""
    try:
        text = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    found = filesystem_of(os.path.realpath(path), text)
    return found if found in NETWORK else ""


def filesystem_of(path: str, mounts: str) -> str:
    """The type of the file system that holds ``path``, by the system's table of mounts; "" where it names none."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        # Of two mounts on one place the later one hides the earlier.
        if inside and len(place) >= len(best):
            best, kind = place, fields[2]
    return kind
