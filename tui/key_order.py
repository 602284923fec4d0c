"""Keys that arrive in one burst are taken one after the other, as if typed slowly.

Textual hands every key to the widget that has the focus when the key arrives, and the focus moves only once the key
before was worked off. Over a link that stalled, ``/red`` arrives as one packet: the ``r`` would still reach the table
and open another screen. Here a key waits until a message that followed the one before through all the same queues
has come back.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from textual.app import App
from textual.events import Event, Key, Paste
from textual.message import Message
from textual.message_pump import MessagePump

ROUNDS = 2
"""How often the message goes its way: messages that an action sends have to arrive too."""

PATIENCE_S = 0.5
"""A key is not held longer: the widget that the message went through may be gone."""


def as_typed(key: str) -> str:
    """One name for one key: some terminals say shift+s where others say S, and in a text it is a letter."""
    letter = key.removeprefix("shift+")
    return letter.upper() if key != letter and len(letter) == 1 and letter.isalpha() else key


class WorkedOff(Message):
    """Follows a key from its widget up to the application."""

    def __init__(self, start: MessagePump, rounds: int, number: int) -> None:
        super().__init__()
        self.start, self.rounds, self.number = start, rounds, number


class KeysInOrder(App[str], inherit_bindings=False):
    """An application that takes one key at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._held: deque[Event] = deque()
        self._taken = 0
        self._busy_since = 0.0
        """When the key that is being worked off was taken; 0 while none is."""

    async def on_event(self, event: Event) -> None:
        """Hold keys back while another one is being worked off."""
        if isinstance(event, Key) and (name := as_typed(event.key)) != event.key:
            event = Key(name, name)
        if not isinstance(event, Key | Paste) or event.is_forwarded:
            await super().on_event(event)
        elif self._held or time.monotonic() - self._busy_since < PATIENCE_S:
            self._held.append(event)
        else:
            await self._take(event)

    async def on_worked_off(self, event: WorkedOff) -> None:
        """The key before is done with: once more, or on to the next."""
        event.stop()
        if event.number != self._taken:
            return
        if event.rounds > 1 and event.start.post_message(WorkedOff(event.start, event.rounds - 1, event.number)):
            return
        # Behind what the key's action asked to be called later, as a change of focus is; perhaps after a refresh.
        if self.screen._callbacks:
            self.screen.call_after_refresh(self.call_later, self._next, event.number)
        else:
            self.call_later(self._next, event.number)

    async def _take(self, event: Event) -> None:
        """Hand on keys, those that wait too, up to the first that has to be worked off."""
        while await self._handed_on(event) and self._held:
            event = self._held.popleft()

    async def _handed_on(self, event: Event) -> bool:
        """Hand on one key; whether the next may follow at once."""
        start = self.focused or self.screen
        if isinstance(event, Key) and start.check_consume_key(event.key, event.character):
            await super().on_event(event)  # typed into a text: the next key goes there too
            return True
        self._taken += 1
        self._busy_since = time.monotonic()
        number = self._taken
        await super().on_event(event)
        if not start.post_message(WorkedOff(start, ROUNDS, number)):
            self.call_later(self._next, number)
        self.set_timer(PATIENCE_S, lambda: self._next(number))
        return False

    async def _next(self, number: int) -> None:
        """Take the next key, if ``number`` is still the one that is waited for."""
        if number == self._taken and self._busy_since:
            self._busy_since = 0.0
            if self._held:
                await self._take(self._held.popleft())
