"""What client and host say to each other: JSON objects, one a line, and the terminal's descriptors with the first.

Both ends belong to the same user, and yet neither believes the other more than it must: lines are bounded, values
are checked, and what cannot be understood ends the conversation without harm.

The client opens with a :class:`Hello`, then says ``resize``, ``detach``, ``cancel`` (as ``detach``, but a run that
did not begin is dropped), ``edited`` and ``restored``. The host says ``refused`` (an error, and that is all), or
``attached``; ``edit`` has the client run its user's editor on a file; at the end come ``released`` (the screen is off
the terminal, which the client sets right, whatever comes) and ``end`` (last words and exit code).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tui.version import VERSION

MOST_BYTES = 2**18
"""Longest line: a text of :data:`MOST_TEXT` fits, whatever is in it."""

MOST_TEXT = 20_000
"""Characters of a text for the client's user."""

HELLO_S = 5.0
"""How long a client may take to say hello."""

SEND_S = 5.0
"""How long the other end may take to read."""

ENVIRONMENT = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "TERM_PROGRAM", "LC_TERMINAL", "TMUX", "STY")
"""What of a client's environment says how to draw on its terminal."""

RUN_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_CUDA_ALLOC_CONF", "HF_HOME", "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE", "COMFYUI_PATH", "XDG_CACHE_HOME",
)  # fmt: skip
"""What of a client's environment says where and with what a run trains; a process reads it once."""

_LONGEST_VALUE = 4096


class Malformed(Exception):
    """The other end said what cannot be understood."""


@dataclass(frozen=True)
class Hello:
    """What a client brings, its terminal's descriptors apart."""

    order: dict[str, Any] = field(default_factory=dict)
    """What is to be done: see :mod:`tui.terminal.orders`; empty to show what there is."""
    attach: bool = True
    """Whether a terminal comes along; without one the order is carried out unseen."""
    traits: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    run_environment: dict[str, str] = field(default_factory=dict)
    """What of :data:`RUN_ENVIRONMENT` is set, for the order."""
    typed: bytes = b""
    answered: bool = True
    """Whether the terminal answered the probe; if not, its answers may still come."""
    settings: list[Any] = field(default_factory=list)
    release: str = VERSION

    def to_message(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.__dict__, "typed": self.typed.decode("latin-1")}


def hello_from(message: dict[str, Any]) -> Hello:
    """The hello that a message is.

    Raises:
        Malformed: it is none.
    """
    default = Hello()
    values: dict[str, Any] = {}
    for key, standard in default.to_message().items():
        value = message.get(key)
        if type(value) is not type(standard):
            raise Malformed(f"hello: {key} is {type(value).__name__}")
        values[key] = value
    for table in (values["order"], values["environment"], values["run_environment"]):
        if not all(isinstance(value, str | bool) and len(str(value)) <= _LONGEST_VALUE for value in table.values()):
            raise Malformed("hello: values of a strange type or length")
    environment = picked(values["environment"], ENVIRONMENT)
    if any("\0" in value for value in environment.values()):
        raise Malformed("hello: environment")
    typed = values["typed"].encode("latin-1", "replace")
    return Hello(**(values | {"environment": environment, "typed": typed}))


def picked(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Those of ``values`` that are among ``names``."""
    return {name: str(values[name]) for name in names if name in values}


class Channel:
    """One end of the conversation. Sending is safe from any thread; one thread receives."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._received = b""
        self._sending = threading.Lock()
        self._link.settimeout(SEND_S)

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._link.fileno()

    def send(self, kind: str, **values: Any) -> bool:
        """Say something; False when the other end is gone."""
        return self.send_with(kind, values, [])

    def send_with(self, kind: str, values: dict[str, Any], descriptors: list[int]) -> bool:
        """Say something and hand descriptors over."""
        data = json.dumps({"kind": kind} | values).encode() + b"\n"
        try:
            with self._sending:
                sent = socket.send_fds(self._link, [data], descriptors) if descriptors else 0
                self._link.sendall(data[sent:])
        except OSError:
            return False
        return True

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next message, or None when none came in time.

        Raises:
            EOFError: the other end is gone.
            Malformed: it speaks another language.
        """
        return self.receive_with([], timeout_s)

    def receive_with(self, descriptors: list[int], timeout_s: float | None = None) -> dict[str, Any] | None:
        """As :meth:`receive`; descriptors that come along are appended, and are the caller's to close."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._received:
            if len(self._received) > MOST_BYTES:
                raise Malformed("a line without an end")
            remaining = None if end is None else max(0.0, end - time.monotonic())
            if not _readable(self._link, remaining):
                return None
            self._received += self._take(descriptors)
        line, _, self._received = self._received.partition(b"\n")
        return _message(line)

    def close(self) -> None:
        """End the conversation; whoever waits in it on our side wakes."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()

    def _take(self, descriptors: list[int]) -> bytes:
        try:
            data, came, _, _ = socket.recv_fds(
                self._link, MOST_BYTES, 2, getattr(socket, "MSG_CMSG_CLOEXEC", 0) | socket.MSG_DONTWAIT
            )
        except (BlockingIOError, TimeoutError):
            return b""
        except OSError as err:
            raise EOFError from err
        for fd in came:
            os.set_inheritable(fd, False)
        descriptors += came
        if not data:
            raise EOFError
        return data


def _readable(link: socket.socket, timeout_s: float | None) -> bool:
    try:
        poll = select.poll()
        poll.register(link, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
    except (OSError, ValueError) as err:  # closed by another thread of ours
        raise EOFError from err


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError) as err:
        raise Malformed("no JSON") from err
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise Malformed("no message")
    return message
