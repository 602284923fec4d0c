"""The command palette's entries: every command of the key table, found by its words."""

from __future__ import annotations

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.keymap import RUN_KEYS, Key


class RunPalette(Provider):
    """Offers the run screen's commands; an empty search lists them all, with their keys."""

    async def discover(self) -> Hits:
        """Every command that can be given now, in the order of the table."""
        for key in self._keys():
            yield DiscoveryHit(key.label, partial(self._do, key.action), help=f"{key.help}  ({key.display})")

    async def search(self, query: str) -> Hits:
        """Commands whose name or help has the words."""
        matcher = self.matcher(query)
        for key in self._keys():
            text = f"{key.label}: {key.help}"
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), partial(self._do, key.action), help=f"key {key.display}")

    def _keys(self) -> list[Key]:
        """The rows that can be done now: a run that is over takes no commands."""
        possible = [key for key in RUN_KEYS if self.screen.check_action(key.action.split("(")[0], ())]
        return [key for key in possible if key.palette]

    async def _do(self, action: str) -> None:
        await self.app.screen.run_action(action)
