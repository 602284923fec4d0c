"""What the screen writes on: a terminal that is not read costs frames, one that is gone costs all; nothing blocks."""

from __future__ import annotations

import os
import pty
import select
import termios
import threading
from collections.abc import Iterator

import pytest

from tui.terminal.driver import Terminal
from tui.terminal.modes import from_plain, make_raw, settings_of, to_plain
from tui.terminal.output import CANCEL, MOST_WAITING, RESET, TerminalOutput, send_all


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that blocks neither end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:  # a test closed it
            continue


def drained(reader: int) -> bytes:
    data = b""
    try:
        while part := os.read(reader, 65_536):
            data += part
    except BlockingIOError:
        pass
    return data


def test_text_goes_out_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = TerminalOutput(writer)
    for number in range(200):
        output.write(f"{number} é\n")
    output.close()
    assert drained(reader).decode() == "".join(f"{number} é\n" for number in range(200))


def test_a_single_long_write_is_sent_and_later_ones_too(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = TerminalOutput(writer)
    output.write("x" * (MOST_WAITING + 1))
    data = b""
    while len(data) <= MOST_WAITING:
        assert select.select([reader], [], [], 10)[0]
        data += drained(reader)
    output.write("end")
    output.close()
    assert data + drained(reader) == b"x" * (MOST_WAITING + 1) + b"end"


def test_a_terminal_that_is_not_read_costs_frames_only(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = TerminalOutput(writer, stall_s=0.01)
    recovered = threading.Event()
    output.on_recovered = recovered.set
    output.write("x" * 300_000)
    assert not output.drain() and output.stalled
    output.write("dropped")
    while not recovered.wait(0.01):
        drained(reader)
    drained(reader)
    output.write("frame")
    assert output.drain() and not output.stalled
    assert drained(reader) == b"frame"
    output.close()


def test_a_cut_sequence_is_ended_before_anything_else(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = TerminalOutput(writer, stall_s=0.01)
    output.write("\x1b_G" + "A" * 300_000)
    output.drain()
    seen = b""
    while not seen.endswith(CANCEL.encode()):
        seen += drained(reader)
    output.close()


def test_too_much_at_once_is_dropped_and_drawn_anew(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = TerminalOutput(writer)
    recovered = threading.Event()
    output.on_recovered = recovered.set
    for _ in range(4):
        output.write("x" * (MOST_WAITING // 2))
    read = 0
    while not recovered.wait(0.01):
        read += len(drained(reader))
    assert read + len(drained(reader)) <= MOST_WAITING * 3 // 2
    output.close()


def test_a_terminal_that_is_gone_is_told_once_and_never_raises(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    output = TerminalOutput(writer)
    gone = threading.Event()
    output.on_lost = gone.set
    os.close(reader)
    output.write("gone")
    assert gone.wait(10)
    output.write("more")
    assert not output.drain() and output.lost
    output.close()
    assert not send_all(writer, "still", 1.0)


def test_a_stalled_terminal_holds_up_nobody_at_the_end(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    output = TerminalOutput(writer, stall_s=0.01)
    output.write("x" * 300_000)
    output.drain()
    output.close()  # returns
    assert not send_all(writer, "x" * 300_000, 0.01)


def test_settings_go_through_plain_values() -> None:
    master, slave = pty.openpty()
    before = settings_of(slave)
    assert before is not None and from_plain(to_plain(before)) == before
    raw = make_raw(slave)
    assert raw is not None and not raw[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert from_plain(to_plain(raw)) == raw
    for wrong in (None, [], [1] * 7, [*to_plain(raw)[:6], [999] * 32], ["x", *to_plain(raw)[1:]], [2**40] * 6 + [[]]):
        assert from_plain(wrong) is None
    os.close(master)
    assert make_raw(slave) is None
    os.close(slave)


def test_settings_that_a_shell_changed_meanwhile_stay() -> None:
    master, slave = pty.openpty()
    before = settings_of(slave)
    terminal = Terminal(slave, slave, before)
    terminal.make_raw()
    shells = settings_of(slave)
    assert shells is not None and before is not None
    shells[3] |= termios.ISIG
    termios.tcsetattr(slave, termios.TCSANOW, shells)
    terminal.reset()
    assert settings_of(slave) == shells
    assert RESET.encode() in os.read(master, 4096)
    terminal.make_raw()
    terminal.reset()
    assert settings_of(slave) == before
    os.close(master)
    os.close(slave)
