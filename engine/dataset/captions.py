"""Captions: reading them from disk as they are, and the text of one training step.

Comes in: the bytes beside a picture and the caption settings. Goes out: text that is safe to tokenize. Nothing is
ever re-encoded by guess: a caption in another encoding is a problem that the user sees. Every draw depends on
(seed, purpose, epoch, slot) alone.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from engine.config import CaptionConfig
from engine.dataset.regular import read_limited
from engine.draws import python_random
from engine.errors import DatasetError
from engine.text import safe_text

MAX_CAPTION_BYTES = 64 * 1024

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters, white space (tab, line ends, U+0085) left out."""

_WILDCARD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def read_caption(path: Path) -> str:
    """Return a caption file's whole text: line ends made ``\\n``, space around it stripped, byte-order mark gone.

    UTF-8, or UTF-16 where a byte-order mark says so.

    Raises:
        DatasetError: unreadable, not a regular file, larger than 64 kB, another encoding (the detail shows the
            bytes), or control characters inside.
    """
    return caption_text(read_limited(path, MAX_CAPTION_BYTES), path).strip()


def caption_text(data: bytes, path: Path) -> str:
    """Decode a caption file's bytes: line ends made ``\\n``, byte-order mark gone, nothing stripped.

    Raises:
        DatasetError: as in :func:`read_caption`; ``path`` is for the message.
    """
    if len(data) > MAX_CAPTION_BYTES:
        raise DatasetError(
            "A caption is too long",
            f"{safe_text(path)} is larger than {MAX_CAPTION_BYTES // 1024} kB",
            "The text encoders read 512 tokens at most (about 2 kB): shorten it, or remove the file.",
        )
    text = _decode(data, path)
    _refuse_controls(text, path)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(data: bytes, path: Path) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as err:
        preview = data[max(0, err.start - 4) : err.start + 12].hex(" ")
        raise DatasetError(
            f"A caption is not {'UTF-16' if wide else 'UTF-8'}",
            f"{safe_text(path)}: byte {err.start} of {len(data)} fits no such text; the bytes around it: {preview}",
            "Save it as UTF-8 in an editor or, once you know its encoding, convert it: "
            "iconv -f WINDOWS-1252 -t UTF-8 old.txt > new.txt",
        ) from err


def _refuse_controls(text: str, path: Path) -> None:
    if found := _CONTROLS.search(text):
        raise DatasetError(
            "A caption holds control characters",
            f"{safe_text(path)}: U+{ord(found[0]):04X} at character {found.start() + 1}",
            "Remove it in an editor: no text encoder has learned from it, and a terminal may obey it.",
        )


def is_fixed(config: CaptionConfig) -> bool:
    """Whether the settings give a picture the same text in every epoch."""
    return not (config.shuffle or config.dropout or config.tag_dropout or config.wildcards)


def final_caption(
    caption: str, config: CaptionConfig, seed: int, epoch: int, slot: int, regularization: bool = False
) -> str:
    """The text one picture is trained on in one epoch.

    In this order: prefix and suffix around it; dropout to the empty text; wildcards; tags shuffled and dropped;
    lines joined by a space; the trigger word put in front where it is missing as a whole word. Regularization
    pictures show what is *not* the concept, so they never get the trigger word.

    With wildcards on, a caption of several lines stands for one of them, drawn before prefix and suffix are put
    around it (sd-scripts puts them around the whole, so that a line in the middle loses both).

    Args:
        caption: as read.
        config: the caption settings.
        seed: the run's.
        epoch: from which the draws depend.
        slot: the picture's place, from which the draws depend.
        regularization: the picture belongs to a regularization folder.
    """
    if config.dropout and python_random(seed, "caption-dropout", epoch, slot).random() < config.dropout:
        return ""
    if config.wildcards:
        caption = _one_line(caption, seed, epoch, slot)
    text = " ".join(part for part in (config.prefix.strip(), caption.strip(), config.suffix.strip()) if part)
    if config.wildcards:
        text = _resolve_wildcards(text, seed, epoch, slot)
    if config.shuffle or config.tag_dropout:
        text = _rearranged(text, config, seed, epoch, slot)
    text = " ".join(text.splitlines())
    return text if regularization else with_trigger(text, config.trigger_word.strip())


def with_trigger(text: str, trigger: str) -> str:
    """``text`` with ``trigger`` in front, unless it is there as a whole word already (in any case)."""
    if not trigger or trigger_pattern(trigger).search(text):
        return text
    return f"{trigger}, {text}" if text else trigger


def trigger_pattern(trigger: str) -> re.Pattern[str]:
    """Finds ``trigger`` as a whole word, in any case."""
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)


def _one_line(caption: str, seed: int, epoch: int, slot: int) -> str:
    lines = [line.strip() for line in caption.splitlines() if line.strip()]
    if len(lines) < 2:
        return caption
    return python_random(seed, "caption-line", epoch, slot).choice(lines)


def _resolve_wildcards(text: str, seed: int, epoch: int, slot: int) -> str:
    """``{a|b}`` becomes one of its choices; ``{{`` and ``}}`` become single braces."""
    draw = python_random(seed, "caption-wildcard", epoch, slot)

    def resolved(match: re.Match[str]) -> str:
        choices: str | None = match.group(1)
        return match.group(0)[0] if choices is None else draw.choice(choices.split("|"))

    return _WILDCARD.sub(resolved, text)


def _rearranged(text: str, config: CaptionConfig, seed: int, epoch: int, slot: int) -> str:
    separator = config.separator.strip()
    tags = [tag.strip() for tag in (text.split(separator) if separator else [text]) if tag.strip()]
    fixed, flexible = tags[: config.keep_tokens], tags[config.keep_tokens :]
    if config.shuffle:
        python_random(seed, "caption-shuffle", epoch, slot).shuffle(flexible)
    if config.tag_dropout:
        draw = python_random(seed, "caption-tags", epoch, slot)
        flexible = [tag for tag in flexible if draw.random() >= config.tag_dropout]
    return ", ".join(fixed + flexible)
