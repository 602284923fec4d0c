"""The command palette's entries: every command that can be given on the screen below it, then the themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.command import CommandInput, CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import LoadingIndicator

from tui.keys.active import Offer, commands
from tui.widgets.marked_list import MarkedCommands

if TYPE_CHECKING:
    from tui.habits import Habits

Entry = tuple[str, str, str, Callable[[], Any]]


class Commands(Provider):
    """Offers what can be done here; an empty search lists it all, with its keys."""

    async def discover(self) -> Hits:
        """Every command that can be given now, the focused pane's first."""
        entries = list(self._entries())
        widest = max((len(name) for name, *_ in entries), default=0)
        for name, words, keys, do in entries:
            said = Content.assemble((f"{name:<{widest}}  ", "bold"), words, _key(keys))
            yield DiscoveryHit(said, do, text=name)

    async def search(self, query: str) -> Hits:
        """Commands whose name or help has the words."""
        matcher = self.matcher(query)
        for name, words, keys, do in self._entries():
            text = f"{name}: {words}"
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, Content.assemble(matcher.highlight(text), _key(keys)), do, text=text)

    def _entries(self) -> Iterator[Entry]:
        """Name, words, keys and what is done, of each entry."""
        for offer in commands(self.screen):
            yield offer.label, offer.help, offer.shown, partial(self._do, offer)
        app = cast("Habits", self.app)
        for name in app.theme_names:
            yield f"Theme {name}", "Change the colours, and keep them", "", partial(app.choose_theme, name)

    async def _do(self, offer: Offer) -> None:
        await self.app.run_action(offer.action, offer.node)


def _key(keys: str) -> str:
    return f"  ({keys})" if keys else ""


class Palette(CommandPalette):
    """Textual's palette with a list whose chosen line has a sign, and without a picture of a magnifying glass."""

    def compose(self) -> ComposeResult:
        """The line to type in, the list below it."""
        with Vertical(id="--container"):
            with Horizontal(id="--input"):
                yield CommandInput(placeholder="Words of a command", select_on_focus=False)
            with Vertical(id="--results"):
                yield MarkedCommands()
                yield LoadingIndicator()
