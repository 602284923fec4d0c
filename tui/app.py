"""The full-screen application around one workplace: what belongs to a terminal (theme, glyphs, picture threads).

:class:`KilnApp` comes and goes with terminals; what must outlive it lies in the :class:`~tui.workplace.Workplace`.
It is run by the host (:mod:`tui.terminal.host`), or by :mod:`tui.foreground` in this process's own terminal. No torch
here: the engine imports it in its own thread, after the first frame.
"""

from __future__ import annotations

import gc
import io
import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.events import Event, Key

from engine.errors import EngineError
from engine.text import safe_text
from tui.glyphs import terminal_is_ascii
from tui.habits import Habits
from tui.screens.workbench import Workbench
from tui.terminal.driver import NOISE, Terminal, driver_on
from tui.terminal.host_log import log_text
from tui.terminal.traits import Traits
from tui.workplace import Workplace

if TYPE_CHECKING:
    from engine.config import RunConfig
    from tui.symptoms import Symptom

Result = TypeVar("Result")

NOISE_POLL_S = 0.5
"""How often the run's folder is looked for, to send there what libraries write."""


class KilnApp(Habits):
    """The application around one workplace. ``run()`` returns "leave", "detach", "hangup" or "replaced".

    Args:
        workplace: what is shown, and outlives this application.
        traits: what the terminal can do; asked of the environment when None.
        terminal: the terminal taken for the screen; Textual's own driver is used when None.
        detachable: whether the workplace goes on without a screen.
    """

    CSS_PATH: ClassVar = "screens/dialogs.tcss"
    TITLE = "lorakiln"

    def __init__(
        self,
        workplace: Workplace,
        traits: Traits | None = None,
        terminal: Terminal | None = None,
        detachable: bool = False,
    ) -> None:
        traits = traits or Traits(utf8=not terminal_is_ascii(), term=os.environ.get("TERM", ""))
        driver = driver_on(terminal) if terminal is not None else None
        super().__init__(traits, workplace.settings, driver)
        self.workplace = workplace
        self.slowed = lambda: workplace.view.slowed
        self.detachable = detachable
        self._terminal = terminal
        if terminal is not None:  # not Textual's, which know the application
            self._capture_stdout = self._capture_stderr = NOISE  # type: ignore[assignment]
        self.leaving = ""
        """How the screen is about to end; empty while it is not."""
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        self.crash = ""
        """Traceback of an error in the screen, for after the terminal is given back."""
        self.typed_at = 0.0
        """When a key was pressed last, by the monotonic clock."""

    def on_mount(self) -> None:
        """Show the workbench."""
        if self.leaving:
            self.exit(self.leaving)
            return
        self.push_screen(Workbench(self.workplace))
        if self._terminal is not None:
            self._noise = self.set_interval(NOISE_POLL_S, self._aim_noise)
        # What is loaded now stays: full collections over it would be pauses of the screen for nothing.
        gc.freeze()

    def post_display_hook(self) -> None:
        """Tell the workbench that it was painted; what is called after a refresh comes before it at the start."""
        if not self._batch_count and self.workbench is not None:
            self.workbench.painted()

    def on_unmount(self) -> None:
        """Let the threads go."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def leave(self, how: str) -> None:
        """End the screen; safe from any thread and from signal handlers, before the start too. The first call counts.

        Args:
            how: what ``run()`` is to return: "leave", "detach", "hangup" or "replaced".
        """
        self.leaving = self.leaving or how
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.exit, self.leaving)

    def _aim_noise(self) -> None:
        """Once the run has a folder, what libraries print goes to its log file."""
        run = self.workplace.run
        folder = run.folder if run is not None else None
        if folder is not None and self._terminal is not None:
            self._terminal.send_noise_to(folder.log)
            self._noise.stop()

    async def on_event(self, event: Event) -> None:
        """Note when somebody types: plots wait for them."""
        if isinstance(event, Key):
            self.typed_at = time.monotonic()
        await super().on_event(event)

    @property
    def workbench(self) -> Workbench | None:
        """The main screen, whatever is over it."""
        return next((screen for screen in self.screen_stack if isinstance(screen, Workbench)), None)

    def remedy_config(self) -> RunConfig | None:
        """The configuration that is open."""
        return self.workplace.config

    def apply_remedy(self, symptom: Symptom, config: RunConfig) -> None:
        """Open the setup form on ``config`` with the remedy's changes marked."""
        if self.workbench is not None:
            self.workbench.set_up(config, symptom.changes(config))

    def explain_interrupt(self, again: bool) -> str:
        """ctrl+c stops nothing: it says how to; twice in short time opens the stop menu."""
        bench = self.workbench
        if bench is None or not self.workplace.live:
            return super().explain_interrupt(again)
        if again and self.screen is bench:
            bench.action_stop()
            return ""
        return f"The run goes on: {self.key_of('app.leave')} leaves, ctrl+c again opens the stop menu"

    def attempt(self, work: Callable[[], Result]) -> Result | None:
        """What ``work`` returns; None where it fails, which is shown."""
        try:
            return work()
        except EngineError as err:
            self.show_error(err)
            return None

    async def edit_outside(self, path: Path) -> str:
        """Have the user edit a file in a program of his own on this terminal; what went wrong, or nothing."""
        terminal = self._terminal
        if terminal is None or (edit := terminal.edit) is None:
            return "this terminal cannot be lent"
        from tui.terminal.lending import lend

        return await lend(self, terminal, partial(edit, path))

    def action_detach(self) -> None:
        """Give the terminal back; the workplace goes on without one."""
        self.leave("detach")

    def action_name_detach(self) -> None:
        """Where nothing can be undone: say how to get away, as other programs do with this key."""
        if self.detachable:
            self.say(f"{self.key_of('app.detach')} gives the terminal back, all goes on; ctrl+z undoes in a text")
        else:
            self.say("ctrl+z undoes in a text; q leaves")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Detaching is offered where something goes on without the screen."""
        return self.detachable if action == "detach" else super().check_action(action, parameters)

    def action_leave(self) -> None:
        """Leave, through the workbench's question when one is due."""
        if self.workbench is not None:
            self.workbench.ask_to_leave()

    def _fatal_error(self) -> None:
        """Keep the traceback, without local variables, and close."""
        if self.leaving:  # widgets that were still being mounted: a matter for the log, not for the user
            log_text(traceback.format_exc())
        else:
            self.crash = safe_text(traceback.format_exc(), 100_000, newlines=True)
        self._close_messages_no_wait()

    def _print_error_renderables(self) -> None:
        """Keep what Textual would print over the log file's descriptor."""
        from rich.console import Console

        if self._exit_renderables and not self.crash:
            console = Console(file=io.StringIO(), width=100, no_color=True)
            for renderable in self._exit_renderables:
                console.print(renderable)
            self.crash = safe_text(console.file.getvalue(), 100_000, newlines=True)  # type: ignore[attr-defined]
        self._exit_renderables.clear()
