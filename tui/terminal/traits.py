"""What is known of a terminal before the screen starts: told by the client that probed it, believed by the screen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Traits:
    """A terminal's abilities; the defaults are a plain modern terminal without pictures."""

    columns: int = 80
    rows: int = 24
    cell_width: int = 0
    """Pixels; 0 where the terminal does not say."""
    cell_height: int = 0
    term: str = "xterm-256color"
    colorterm: str = ""
    no_color: bool = False
    utf8: bool = True
    images: str = ""
    """The picture protocol that answered: "kitty", "sixel", or "" for cells."""
    round_trip_ms: float = 0.0
    """Time from a question to the terminal's answer; 0 where it did not answer."""
    ssh: bool = False
    multiplexer: bool = False
    """Inside tmux or screen, which eat picture protocols."""

    @property
    def ascii(self) -> bool:
        """Whether to draw in plain ASCII: another locale than UTF-8, or the bare Linux console."""
        return not self.utf8 or self.term == "linux"

    @property
    def slow(self) -> bool:
        """Whether frames should be few and nothing should move: a link that answers late, or any over SSH."""
        return self.ssh or self.round_trip_ms > 100

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Traits:
        """The traits that ``table`` holds; what it lacks, or holds in another type, has its default."""
        default = cls()
        kept: dict[str, Any] = {}
        for part in fields(cls):
            value, wanted = table.get(part.name), type(getattr(default, part.name))
            if isinstance(value, wanted) or (wanted is float and isinstance(value, int)):
                kept[part.name] = value
        return cls(**kept)
