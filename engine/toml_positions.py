"""Where each key of a TOML text stands: dotted path to line number, for error messages that name the line.

Takes a text that ``tomllib`` has already accepted, so it only has to find its way, never to judge. Paths are tuples
of keys and, inside arrays, positions: ``("dataset", "folders", 0, "path")``. It stands alone because neither
``tomllib`` nor ``tomlkit`` tells positions of parsed values.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
# Blank space, line ends and comments: what may stand between the elements of an array and between statements.
_FILL = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2}(?!"))?' r"|'''.*?'''(?:'{0,2}(?!'))?" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def find_positions(text: str) -> dict[Path, int]:
    """Line number (from 1) of every table, key and array element of ``text``.

    Args:
        text: valid TOML, nested no deeper than Python's recursion limit allows.
    """
    return _Finder(text).run()


class _Finder:
    """A cursor over the text that notes a line for each path it passes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._array_sizes: dict[Path, int] = {}
        self._counted = 0
        self._line = 1

    def run(self) -> dict[Path, int]:
        """Walk the statements: table headers and key-value pairs."""
        table: Path = ()
        self._skip(_FILL)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_FILL)
        return self.lines

    def _header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``: the path of the table that follows."""
        line = self._line_here()
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        keys = self._dotted_key()
        self.at += 2 if is_array else 1
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            self.lines.setdefault(path, line)
            last = number == len(keys) - 1
            if last and is_array:
                self._array_sizes[path] = self._array_sizes.get(path, 0) + 1
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
                self.lines.setdefault(path, line)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line_here()
        path = table
        for key in self._dotted_key():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self.at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        char = self.text[self.at]
        if char == "[":
            self._array(path)
        elif char == "{":
            self._inline_table(path)
        elif char in "\"'":
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        self._skip(_FILL)
        while self.text[self.at] != "]":
            self.lines[(*path, index)] = self._line_here()
            self._value((*path, index))
            index += 1
            self._skip_separator()
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        self._skip(_FILL)
        while self.text[self.at] != "}":
            self._pair(path)
            self._skip_separator()
        self.at += 1

    def _skip_separator(self) -> None:
        self._skip(_FILL)
        if self.text[self.at] == ",":
            self.at += 1
        self._skip(_FILL)

    def _dotted_key(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            start = self.at
            if self.text[self.at] in "\"'":
                self._skip(_STRING)
                keys.append(tomllib.loads(f"key = {self.text[start : self.at]}")["key"])
            else:
                self._skip(_BARE)
                keys.append(self.text[start : self.at])
            self._skip(_SPACE)
            if self.text[self.at] != ".":
                return keys
            self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()

    def _line_here(self) -> int:
        # Counted from where the last count ended, so the whole walk reads the text once.
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line
