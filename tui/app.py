"""The full-screen application: one run, one screen, and everything a terminal can do to it.

:class:`KilnApp` holds what belongs to the process (theme, glyphs, picture threads, crash text); the screens hold the
rest. :func:`run_app` is what commands call: it takes the terminal, turns signals into a saved stop, shows the run and
gives the terminal back whatever happened. No torch here: the engine imports it in its own thread, after the first
frame.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from engine.commands import StopNow
from engine.text import safe_text
from tui.bridge import Bridge, RunLike
from tui.exit_codes import exit_code
from tui.glyphs import terminal_is_ascii
from tui.palette import RunPalette
from tui.safe import install_backstop
from tui.screens.run import RunScreen
from tui.signals import StopSignals, exit_code_of
from tui.terminal import Terminal, driver_on, own_terminal

CTRL_C_S = 2.0
"""A second ctrl+c within this time opens the stop menu."""

NOISE_POLL_S = 0.5
"""How often the run's folder is looked for, to send there what libraries write."""


class KilnApp(App[None], inherit_bindings=False):
    """The application around one run.

    Args:
        run: a run, started by the screen after its first frame unless it has events already.
        ascii_terminal: draw in ASCII; asked of the locale when None.
        terminal: the terminal taken for the screen; Textual's own driver is used when None.
        keymap: other keys for bindings, by their ids.
    """

    CSS_PATH = "screens/run.tcss"
    TITLE = "lorakiln"
    COMMANDS = App.COMMANDS | {RunPalette}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "Interrupt", show=False, system=True, id="app.interrupt"),
        Binding("ctrl+q", "leave", "Leave", show=False, id="app.leave_anywhere"),
    ]

    def __init__(
        self,
        run: RunLike,
        ascii_terminal: bool | None = None,
        terminal: Terminal | None = None,
        keymap: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(driver_class=driver_on(terminal) if terminal is not None else None)
        self.bridge = Bridge(run)
        self.leave_now = False
        """Set by a signal handler: the screen leaves at its next poll."""
        self._terminal = terminal
        self.ascii_terminal = terminal_is_ascii() if ascii_terminal is None else ascii_terminal
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        self.crash = ""
        """Traceback of an error in the screen, for after the terminal is given back."""
        self.animation_level = "none"
        self._interrupted_at = -CTRL_C_S
        install_backstop(self.ascii_terminal)
        self.set_class(self.ascii_terminal, "-ascii")
        if keymap:
            self.set_keymap(dict(keymap))

    def on_mount(self) -> None:
        """Show the run."""
        self.push_screen(RunScreen(self.bridge, self.pool))
        if self._terminal is not None:
            self._noise = self.set_interval(NOISE_POLL_S, self._aim_noise)
        # What is loaded now stays: full collections over it would be pauses of the screen for nothing.
        gc.freeze()

    def on_unmount(self) -> None:
        """Let the threads go."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.bridge.close()

    def _aim_noise(self) -> None:
        """Once the run has a folder, what libraries print goes to its log file."""
        folder = self.bridge.run.folder
        if folder is not None and self._terminal is not None:
            self._terminal.send_noise_to(folder.log)
            self._noise.stop()

    def _print(self, text: str, stderr: bool = False) -> None:
        """Python's own prints, which Textual catches, go where the noise goes."""
        if self._terminal is None:
            super()._print(text, stderr)
        else:
            os.write(2, text.encode("utf-8", "replace"))

    def notify(self, message: str, **options: Any) -> None:
        """Show a toast; never markup, always through the gate for foreign text."""
        super().notify(safe_text(message, 400), **(options | {"markup": False}))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette's entries that are not the run's: theme and screenshot."""
        kept = {"Theme", "Screenshot"}
        return [command for command in super().get_system_commands(screen) if command.title in kept]

    async def action_leave(self) -> None:
        """Leave, through the run screen's question when one is due."""
        for screen in self.screen_stack:
            if isinstance(screen, RunScreen):
                await screen.run_action("leave")

    def action_interrupt(self) -> None:
        """ctrl+c stops nothing: it says how to; twice within two seconds opens the stop menu."""
        now = time.monotonic()
        again = now - self._interrupted_at < CTRL_C_S
        self._interrupted_at = now
        screen = self.screen
        if isinstance(screen, RunScreen) and screen.run_view.live:
            if again:
                screen.action_stop()
            else:
                self.notify("The run goes on: q leaves, s stops, ctrl+c again opens the stop menu")
        else:
            self.notify("q leaves")

    def _fatal_error(self) -> None:
        """Keep the traceback, without local variables, and close."""
        self.crash = traceback.format_exc()
        self._close_messages_no_wait()

    def _print_error_renderables(self) -> None:
        """Keep what Textual would print over the log file's descriptor."""
        from rich.console import Console

        if self._exit_renderables and not self.crash:
            console = Console(file=io.StringIO(), width=100, no_color=True)
            for renderable in self._exit_renderables:
                console.print(renderable)
            self.crash = str(console.file.getvalue())  # type: ignore[attr-defined]
        self._exit_renderables.clear()


def run_app(run: RunLike, keymap: Mapping[str, str] | None = None) -> int:
    """Show ``run`` full screen until the user leaves; returns the exit code.

    The run is started once the first frame is painted. A run that is live when the screen ends (a signal, a crash
    of the screen) is saved and stopped; a second signal ends the process at once, whatever is lost.
    """
    with own_terminal() as terminal:
        app = KilnApp(run, terminal=terminal, keymap=keymap)

        def on_signal(signum: int) -> None:
            if signals.count > 1:
                terminal.reset()
                os._exit(exit_code_of(signum))
            app.leave_now = True
            run.submit(StopNow())

        signals = StopSignals(on_signal)
        with signals:
            app.run()
    _wait_for_end(run)
    if app.crash:
        print(safe_text(app.crash, 20_000, newlines=True), file=sys.stderr)
        return 1
    app.bridge.finish()
    ended = app.bridge.view.state if run.events.seq else "stopped"
    return exit_code(ended, signals.exit_code)


def _wait_for_end(run: RunLike) -> None:
    """Have a run that outlived its screen saved and stopped; the user sees what is waited for."""
    if not run.alive:
        return
    run.submit(StopNow())
    print("Saving and stopping the run...", file=sys.stderr, flush=True)
    with StopSignals(lambda signum: os._exit(exit_code_of(signum))):
        run.join()
