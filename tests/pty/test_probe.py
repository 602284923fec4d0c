"""The terminal's abilities, asked of terminals that answer well, late, badly or not at all."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator

import pytest

from tui.terminal.modes import make_raw
from tui.terminal.probe import MOST_BYTES, Probed, probe, settle, without_answers
from tui.terminal.traits import Traits

FENCE = b"\x1b[c"
XTERM = {"TERM": "xterm-256color"}


class FakeTerminal:
    """A pseudo-terminal that says ``answer`` once it is asked."""

    def __init__(self, answer: bytes, fence: bytes = FENCE) -> None:
        self.master, self.slave = pty.openpty()
        self.asked = b""
        make_raw(self.slave)
        self._thread = threading.Thread(target=self._answer, args=(answer, fence))
        self._thread.start()

    def _answer(self, answer: bytes, fence: bytes) -> None:
        while not self.asked.endswith(fence):
            self.asked += os.read(self.master, 4096)
        while answer:
            answer = answer[os.write(self.master, answer) :]

    def probe(self, environment: dict[str, str] | None = None, timeout_s: float = 30.0) -> Probed:
        """What the probe finds here."""
        found = probe(self.slave, self.slave, XTERM if environment is None else environment, timeout_s)
        self._thread.join()
        return found

    def close(self) -> None:
        """Take it away."""
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminals() -> Iterator[list[FakeTerminal]]:
    """Terminals to be closed after the test."""
    made: list[FakeTerminal] = []
    yield made
    for terminal in made:
        terminal.close()


def found(terminals: list[FakeTerminal], answer: bytes, environment: dict[str, str] | None = None) -> Probed:
    terminals.append(FakeTerminal(answer))
    return terminals[-1].probe(environment)


def test_a_plain_terminal(terminals: list[FakeTerminal]) -> None:
    got = found(terminals, b"\x1b[?62;22c")
    assert got.answered and got.typed == b"" and got.traits.images == ""
    assert got.traits.round_trip_ms > 0 and (got.traits.cell_width, got.traits.cell_height) == (0, 0)


def test_kitty_is_preferred_to_sixel(terminals: list[FakeTerminal]) -> None:
    got = found(terminals, b"\x1b_Gi=4207;OK\x1b\\\x1b[6;20;10t\x1b[4;800;1600t\x1b[?62;4c")
    assert got.traits.images == "kitty"
    assert (got.traits.cell_width, got.traits.cell_height) == (10, 20)


def test_a_kitty_that_refuses_and_sixel(terminals: list[FakeTerminal]) -> None:
    got = found(terminals, b"\x1b_Gi=4207;ENOTSUP:no\x1b\\\x1b[?62;4;22c")
    assert got.traits.images == "sixel"
    # 4 as the first number is the terminal's class, not an ability.
    assert found(terminals, b"\x1b[?4;22c").traits.images == ""


def test_the_cells_size_from_the_windows(terminals: list[FakeTerminal]) -> None:
    os.environ.pop("COLUMNS", None)
    got = found(terminals, b"\x1b[4;480;800t\x1b[?1c")
    assert (got.traits.cell_width, got.traits.cell_height) == (10, 20)  # of 80 x 24


def test_what_was_typed_meanwhile_is_kept_in_order(terminals: list[FakeTerminal]) -> None:
    got = found(terminals, b"j\x1b_Gi=4207;OK\x1b\\j\x1b[A\x1b[6;20;10t\xc3\xa9\x1b[?62;4cq")
    assert got.typed == b"jj\x1b[A\xc3\xa9q" and got.traits.images == "kitty"


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "tmux-256color"}, {"TERM": "xterm", "TMUX": "/tmp/x,1,0"}, {"TERM": "screen"}, {"TERM": "linux"}],
    ids=["tmux", "in-tmux", "screen", "linux"],
)
def test_who_would_take_the_question_amiss_is_not_asked(
    terminals: list[FakeTerminal], environment: dict[str, str]
) -> None:
    got = found(terminals, b"\x1b[?62;4c", environment)
    assert terminals[-1].asked == FENCE
    assert got.traits.images == "" and got.traits.multiplexer == (environment["TERM"] != "linux")


def test_no_answer_is_waited_for_no_longer_than_said(terminals: list[FakeTerminal]) -> None:
    terminals.append(FakeTerminal(b"typed"))
    got = terminals[-1].probe(timeout_s=0.2)
    assert not got.answered and got.typed == b"typed" and got.traits.round_trip_ms == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"\x1b[6;0;0t", b"\x1b[6;99999;99999t", b"\x1b[6;-1;5t", b"\x1b[6;" + b"9" * 5000 + b";1t",
        b"\x1b[4;1;1t", b"\x1b_Gi=4207;" + b"A" * 5000 + b"\x1b\\", b"\x1b_Gi=1;OK\x1b\\",
    ],
    ids=["zero", "huge", "negative", "digits", "tiny", "long-refusal", "another-number"],
)  # fmt: skip
def test_nonsense_is_not_believed(terminals: list[FakeTerminal], answer: bytes) -> None:
    got = found(terminals, answer + b"\x1b[?62c")
    assert got.answered and got.traits.images == ""
    assert (got.traits.cell_width, got.traits.cell_height) == (0, 0)


def test_a_flood_is_cut_off(terminals: list[FakeTerminal]) -> None:
    terminals.append(FakeTerminal(b"x" * (MOST_BYTES - 1)))
    got = terminals[-1].probe(timeout_s=0.5)
    assert len(got.typed) <= MOST_BYTES and not got.answered


def test_a_terminal_that_is_gone_is_no_error() -> None:
    terminal = FakeTerminal(b"", fence=b"")
    os.close(terminal.master)
    got = probe(terminal.slave, terminal.slave, XTERM, 0.1)
    assert not got.answered
    os.close(terminal.slave)


def test_late_answers_are_told_from_keys() -> None:
    late = b"\x1b[?62;4;22c\x1b[6;20;10t\x1b[4;800;1600t\x1b_Gi=4207;OK\x1b\\"
    assert without_answers(b"j" + late + b"k\x1b[B") == b"jk\x1b[B"


def test_what_is_under_way_at_the_end_is_dropped(terminals: list[FakeTerminal]) -> None:
    terminals.append(FakeTerminal(b"\x1b[<35;10;10M\x1b[<35;11;10M\x1b[?62;22c"))
    terminal = terminals[-1]
    settle(terminal.slave, terminal.slave, 30.0)
    os.set_blocking(terminal.slave, False)
    with pytest.raises(BlockingIOError):
        os.read(terminal.slave, 100)


def test_slow_and_plain_terminals_are_known() -> None:
    assert Traits(ssh=True).slow and Traits(round_trip_ms=150.0).slow and not Traits(round_trip_ms=5.0).slow
    assert Traits(utf8=False).ascii and Traits(term="linux").ascii and not Traits().ascii
    odd = {"columns": "80", "rows": 50, "images": 3, "round_trip_ms": 7, "strange": 1}
    assert Traits.from_dict(odd) == Traits(rows=50, round_trip_ms=7)
