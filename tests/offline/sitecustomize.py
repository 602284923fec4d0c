"""Put first on a child's path: every way to the network is refused, and noted in the file $KILN_ATTEMPTS names.

Python imports a module of this name in every process that it starts, so children of children are watched too. Unix
sockets are no network.
"""

import os
import socket
import sys

_TALK = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")


def _note(what: str) -> None:
    with open(os.environ["KILN_ATTEMPTS"], "a", encoding="utf-8") as file:
        file.write(f"{what} by {sys.argv[:3]}\n")


def _watch(event: str, args: tuple) -> None:
    """Python tells its audit hooks of every connection and every name looked up, whichever library asks."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        _note(f"{event} {args!r}")
        raise OSError("the network is refused here")
    if (
        event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
        and args[0].family != socket.AF_UNIX
    ):
        _note(f"{event} {args[1:]!r}")
        raise OSError("the network is refused here")
    if event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
        program = os.path.basename(os.fsdecode(args[0] or b""))
        if program in ("curl", "wget", "git", "ssh", "pip", "nc"):
            _note(f"{event} {program}")
            raise OSError("the network is refused here")


if "KILN_ATTEMPTS" in os.environ:
    sys.addaudithook(_watch)
