"""The command palette's entries: every command of the key table, found by its words."""

from __future__ import annotations

from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.keymap import RUN_KEYS


class RunPalette(Provider):
    """Offers the run screen's commands; an empty search lists them all, with their keys."""

    async def discover(self) -> Hits:
        """Every command, in the order of the table."""
        for key in RUN_KEYS:
            if key.palette:
                yield DiscoveryHit(key.label, partial(self._do, key.action), help=f"{key.help}  ({key.display})")

    async def search(self, query: str) -> Hits:
        """Commands whose name or help has the words."""
        matcher = self.matcher(query)
        for key in RUN_KEYS:
            text = f"{key.label}: {key.help}"
            score = matcher.match(text)
            if key.palette and score > 0:
                yield Hit(score, matcher.highlight(text), partial(self._do, key.action), help=f"key {key.display}")

    async def _do(self, action: str) -> None:
        await self.app.screen.run_action(action)
