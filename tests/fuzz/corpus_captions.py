"""Caption files as strangers write them: encodings, line ends, control characters, lengths, things that act.

Each with what must become of it: the text that is trained on, or words of the reason why it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.engine.pictures import OSC_52, P

CAFE = "café, naïve"


@dataclass(frozen=True)
class HostileCaption:
    """A caption's bytes; ``text`` as it is read, or None with words of the ``reason``."""

    data: bytes
    text: str | None = None
    reason: str = ""


def _read(data: bytes | str, text: str | None = None) -> HostileCaption:
    """Taken: as it stands unless ``text`` says otherwise."""
    if isinstance(data, str):
        return HostileCaption(data.encode(), data.strip() if text is None else text)
    return HostileCaption(data, text)


def _refused(data: bytes, reason: str) -> HostileCaption:
    return HostileCaption(data, None, reason)


CAPTIONS: dict[str, HostileCaption] = {
    "empty": _read(b"", ""),
    "spaces": _read(" \t\n \n", ""),
    "plain": _read("a red cat"),
    "lines": _read("a red cat\non a mat\n"),
    "no last line feed": _read("a red cat\non a mat"),
    "many last line feeds": _read("a red cat\n\n\n"),
    "bom": _read(b"\xef\xbb\xbfa red cat\n", "a red cat"),
    "only a bom": _read(b"\xef\xbb\xbf", ""),
    "two boms": _read(b"\xef\xbb\xbf\xef\xbb\xbfa cat", "\ufeffa cat"),
    "utf-16le": _read(f"\ufeff{CAFE}\r\nx\r\n".encode("utf-16-le"), f"{CAFE}\nx"),
    "utf-16be": _read(f"\ufeff{CAFE}\n".encode("utf-16-be"), CAFE),
    "utf-16 emoji": _read("\ufeff👩‍👩‍👧‍👦\n".encode("utf-16-le"), "👩‍👩‍👧‍👦"),
    "utf-16 only a bom": _read(b"\xff\xfe", ""),
    "utf-16 odd": _refused(b"\xff\xfea\0b", "not UTF-16"),
    "utf-16 half a pair": _refused(b"\xff\xfe\x00\xd8a\0", "not UTF-16"),
    "utf-16 without a bom": _refused("a cat".encode("utf-16-le"), "control characters"),
    "utf-32": _refused("\ufeffa cat".encode("utf-32-le"), "control characters"),
    "latin-1": _refused(CAFE.encode("latin-1"), "not UTF-8"),
    "windows-1252": _refused("“quoted”".encode("cp1252"), "not UTF-8"),
    "shift-jis": _refused("赤い猫".encode("shift-jis"), "not UTF-8"),
    "gb18030": _refused("红色的猫".encode("gb18030"), "not UTF-8"),
    "overlong": _refused(b"a\xc0\xaf", "not UTF-8"),
    "surrogate": _refused(b"a\xed\xa0\x80", "not UTF-8"),
    "cut in a character": _refused(CAFE.encode()[:4], "not UTF-8"),
    "nul": _refused(b"a\0b", "U+0000"),
    "osc 52": _refused(f"a cat {OSC_52}".encode(), "U+001B"),
    "c1": _refused("a \x9b2J cat".encode(), "U+009B"),
    "delete": _refused(b"a\x7fb", "U+007F"),
    "bell": _refused(b"a\x07b", "U+0007"),
    "vt and ff": _refused(b"a\x0bb\x0cc", "U+000B"),
    "file separators": _refused(b"a\x1cb\x1dc", "U+001C"),
    "binary": _refused(P, "not UTF-8"),
    "crlf": _read(b"a\r\nb\r\n", "a\nb"),
    "cr": _read(b"a\rb\r", "a\nb"),
    "mixed": _read(b"a\r\nb\nc\rd\r\n", "a\nb\nc\nd"),
    "mixed and empty": _read(b"a\r\n\r\nb\n\nc\r\r\nd", "a\n\nb\n\nc\n\nd"),
    "unicode breaks": _read("a\u2028b\u2029c\x85d"),
    "breaks and line ends": _read("a\u2028b\r\nc\x85\r\nd\n", "a\u2028b\nc\x85\nd"),
    "tabs": _read("a\tred\tcat"),
    "markup": _read("[/nope] [@click=app.quit]x[/] [link=http:x]y[/link] [edit]"),
    "wildcards": _read("{a|b} {{c}} {|} {unclosed"),
    "format": _read("%s %n ${HOME} $(id) `id` ; rm -rf ~"),
    "toml": _read('"""\nname = "x"\n\'\'\''),
    "bidi": _read("a \u202ereversed\u202c \u2066x\u2069"),
    "zero width": _read("a\u200bb\u200cc\u200dd\ufeff"),
    "tags": _read("a\U000e0041\U000e0042b"),
    "marks": _read("a" + "\u0301" * 1000),
    "family": _read("👩‍👩‍👧‍👦, ❤️, 🏳️‍🌈"),
    "nfd": _read("cafe\u0301"),
    "scripts": _read("赤い猫, красная кошка, قطة حمراء, חתול"),
    "private": _read("a\ue000b\U0010ffffc"),
    "400 tags": _read(", ".join(f"tag {number}" for number in range(400))),
    "commas": _read("," * 1000),
    "one word": _read("x" * 60_000),
    "at the limit": _read("x" * (64 * 1024)),
    "above the limit": _refused(b"x" * (64 * 1024 + 1), "larger than 64 kB"),
    "10 MB": _refused(b"a cat, " * 1_500_000, "larger than 64 kB"),
    "64 kB of line feeds": _read("\n" * (64 * 1024), ""),
    "64 kB of joiners": _read("\u200d" * 20_000),
}


def write_captions(folder: Path) -> dict[str, Path]:
    """A picture for each caption; the captions' paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        path = folder / f"{number:02} {name}.txt"
        path.write_bytes(caption.data)
        path.with_suffix(".png").write_bytes(P)
        paths[name] = path
    return paths
