"""A process with torch imported that forks one child for each attempt, so that a kill costs no import.

It has a single thread when it forks, or it refuses. A request is a JSON line on its standard input; the reply, when
the child has ended, is one on its standard output. The child works through a scenario below its home and dies by
SIGKILL: by its own hand at a moment that was asked for, or by the zygote's after a time.

What a child says goes to a file of notes beside its home, each line at once, so that it outlives the kill.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import importlib
import json
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHILD_LIMIT_S = 240.0
"""A child that has not ended by then hangs: it is killed, and the reply says so."""

Note = Callable[..., None]


def main() -> None:
    """Import everything a scenario needs, say so, and serve requests until the input ends."""
    import scenarios

    scenarios.import_all()
    _reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        for name in request.get("import", ()):
            with contextlib.suppress(ImportError):  # some modules are made, not imported
                importlib.import_module(name)
        threads = len(os.listdir("/proc/self/task"))
        assert threads == 1, f"{threads} threads: a fork would be unsafe"
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _be_child(request)
        _reply(_watch(pid, request) | {"pid": pid, "seconds": time.monotonic() - began})


def _reply(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


def _watch(pid: int, request: dict[str, Any]) -> dict[str, Any]:
    """Wait for a child's end, and bring it about after ``after_s`` if that is asked for."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    limit = request.get("after_s") or CHILD_LIMIT_S
    ended = bool(poll.poll(limit * 1000))
    if not ended:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(handle)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {
        "killed": killed,
        "hung": not ended and not request.get("after_s"),
        "code": None if killed else os.waitstatus_to_exitcode(status),
    }


def _be_child(request: dict[str, Any]) -> None:
    code = 70
    try:
        _settle_in(request)
        code = _work(request)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle_in(request: dict[str, Any]) -> None:
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    faulthandler.enable()
    faulthandler.dump_traceback_later(CHILD_LIMIT_S - 10)
    for name in ("CACHE", "CONFIG", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(Path(request["home"]) / f"xdg-{name.lower()}")


def _work(request: dict[str, Any]) -> int:
    import scenarios
    import seams

    notes = os.open(request["notes"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(**record: Any) -> None:
        os.write(notes, (json.dumps(record) + "\n").encode())

    wanted, nth = request.get("what"), request.get("nth", 0)
    counts: collections.Counter[str] = collections.Counter()

    def hook(_: int, what: str, path: str) -> None:
        counts[what] += 1
        counts[""] += 1
        if nth and (not wanted or what == wanted) and counts[wanted or ""] == nth:
            note(killed_at=what, path=path)
            os.kill(os.getpid(), signal.SIGKILL)

    seams.PIECE = request.get("piece", seams.PIECE)
    home, known = Path(request["home"]), set(sys.modules)
    trace: list[seams.Change] = []
    record = trace.append if request.get("record") else None
    with (
        seams.Seams([home], hook, record) as watched,
        scenarios.moments(lambda what: watched.moment(what, str(home))),
    ):
        scenarios.SCENARIOS[request["scenario"]](home, request["variant"], note)
    note(moments=counts, imported=sorted(set(sys.modules) - known))
    if record is not None:
        Path(request["record"]).write_bytes(pickle.dumps(trace))
    return 0


if __name__ == "__main__":
    main()
