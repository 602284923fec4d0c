"""A dataset's folder as strangers pack it: names that are no text, names that act, links, pipes, twins, depth.

Everything is written by code below a folder; what the file system refuses is left out and told.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine.pictures import OSC_52, P

ODD: tuple[bytes, ...] = (
    b"\xff\xfe",
    b"caf\xe9",
    b"\xed\xa0\x80",
    b"x" * 251,
    "漢".encode() * 83,
    OSC_52.replace("/", "_").encode(),
    b"\x1b]0;t\x07",
    b"\x1b[6n",
    "\x9b2J".encode(),
    b"a\nb",
    b"a\rb",
    b"tab\there",
    b"\x7f",
    "\u202egpj".encode(),
    "\u2066a\u2069".encode(),
    "a\u200bb".encode(),
    "\u2028".encode(),
    "\ufeffbom".encode(),
    "\U000e0041".encode(),
    ("a" + "\u0301" * 60).encode(),
    b" ",
    b"end ",
    b"dot.",
)
"""Stems of pictures that can be trained on, with a warning about each."""
PLAIN: tuple[bytes, ...] = (
    "é".encode() * 118,
    "👩‍👩‍👧‍👦".encode(),
    b"[_b]",
    b"[@click=app.quit]x",
    b"[link=http:x]y",
    b"photo [edit]",
    b"$(id)",
    b"`id`",
    b"; rm -rf ~",
    b"-rf",
    b"--help",
    b"con",
    b"~root",
    b"%s%n",
    b"a\\b",
    b"'",
    b'"',
    b"{a|b}",
)
"""Stems that act on shells, markup and careless programs, and on nothing here."""
ALIKE: tuple[bytes, ...] = (
    b"CASE",
    b"case",
    "NFC-é".encode(),
    "NFC-e\u0301".encode(),
)
"""Stems that some file systems take for one another."""
STEMS = dict.fromkeys(ODD, "odd-name") | dict.fromkeys(PLAIN, "") | dict.fromkeys(ALIKE, "alike-names")
"""Stems of pictures that can all be trained on, with the code of the warning that each (or its twin) gets."""


@dataclass
class HostileFolder:
    """What was written: pictures to be listed with their warning's code, and what must be refused or passed over."""

    root: Path
    listed: dict[bytes, str] = field(default_factory=dict)
    """By the picture's path."""
    told: dict[bytes, str] = field(default_factory=dict)
    """Paths that must be told of, with the code; none of them is trained on."""
    held: list[socket.socket] = field(default_factory=list)

    def count(self) -> int:
        """How many entries were made on purpose."""
        return len(self.listed) + len(self.told)


def _put(folder: HostileFolder, below: bytes, stem: bytes, code: str, ending: bytes = b".png") -> None:
    path = os.path.join(os.fsencode(folder.root), below, stem)
    for end, data in ((ending, P), (b".txt", b"a picture")):
        with open(path + end, "wb") as file:
            file.write(data)
    folder.listed[path + ending] = code


def write_folder(root: Path) -> HostileFolder:
    """Fill ``root`` with all of it; a secret lies beside it, which nothing may read."""
    folder = HostileFolder(root)
    root.mkdir(parents=True)
    for stem, code in STEMS.items():
        _put(folder, b"", stem, code)
    _put_links(folder)
    _put_what_is_no_file(folder)
    base = os.fsencode(root)
    # Two pictures for one caption; what is inside decides about none of them.
    for name in (b"twin.png", b"twin.webp"):
        with open(os.path.join(base, name), "wb") as file:
            file.write(P)
    folder.told[os.path.join(base, b"twin.png")] = "same-stem"
    deep = os.path.join(base, b"/".join([b"d"] * 18))
    os.makedirs(deep)
    with open(os.path.join(deep, b"deep.png"), "wb") as file:
        file.write(P)
    folder.told[os.path.join(base, b"/".join([b"d"] * 16))] = "too-deep"
    _put(folder, b"d/d/d", b"in reach", "")
    return folder


def _put_links(folder: HostileFolder) -> None:
    root = folder.root
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(P)
    (outside / "secret.txt").write_text("of someone else")
    for name, target, code in (
        ("loop", ".", ""), ("up", "..", "link-outside"), ("self.png", "self.png", "broken-link"),
        ("etc", "/etc", "link-outside"), ("passwd.png", "/etc/passwd", "link-outside"),
        ("out.png", str(outside / "secret.png"), "link-outside"), ("gone.png", "nothing.png", "broken-link"),
        ("zero.png", "/dev/zero", "link-outside"),
    ):  # fmt: skip
        (root / name).symlink_to(target)
        if code:
            folder.told[os.fsencode(root / name)] = code
    # A picture of its own whose caption is a link out of the folder.
    (root / "lent.png").write_bytes(P)
    (root / "lent.txt").symlink_to(outside / "secret.txt")
    folder.listed[os.fsencode(root / "lent.png")] = "no-caption"
    folder.told[os.fsencode(root / "lent.txt")] = "link-outside"
    _put(folder, b"", b"hard", "same-file")
    os.link(root / "hard.png", root / "hard2.png")
    (root / "hard2.txt").write_text("the same file")
    folder.listed[os.fsencode(root / "hard2.png")] = "same-file"


def _put_what_is_no_file(folder: HostileFolder) -> None:
    root = folder.root
    os.mkfifo(root / "pipe.png")
    folder.told[os.fsencode(root / "pipe.png")] = "not-regular"
    (root / "piped.png").write_bytes(P)
    os.mkfifo(root / "piped.txt")
    folder.listed[os.fsencode(root / "piped.png")] = "no-caption"
    folder.told[os.fsencode(root / "piped.txt")] = "not-regular"
    (root / "folder.png").mkdir()
    (root / "folder.txt").mkdir()
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(root)  # a socket's path has 108 bytes at most
        server.bind("socket.png")
    finally:
        os.chdir(here)
    folder.held.append(server)
    folder.told[os.fsencode(root / "socket.png")] = "not-regular"
    if os.geteuid() != 0:  # root may read everything
        _put(folder, b"", b"forbidden", "")
        path = os.path.join(os.fsencode(root), b"forbidden.png")
        os.chmod(path, 0)
        del folder.listed[path]
        folder.told[path] = "picture"
