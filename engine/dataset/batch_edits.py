"""One operation on many captions: find and replace, prefix, suffix, trigger word, tags removed, renamed, sorted.

Comes in: an :class:`Operation`, and one caption's text at a time. Goes out: the new text. Pure; nothing here reads or
writes a file (:mod:`engine.dataset.applying` does). What an operation does not concern it leaves exactly as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.dataset.captions import MAX_CAPTION_BYTES, with_trigger
from engine.errors import DatasetError
from engine.text import safe_text

KINDS = ("replace", "remove", "rename", "prefix", "suffix", "trigger", "dedupe", "sort", "sentence", "tags")
WHERE = ("anywhere", "words", "tags")

SLOWEST_S = 0.2
"""An expression that takes longer on one caption would take for ever on some other."""

_CLOSING = re.compile(r"[,.;:!?)\]]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

Edit = Callable[[str], str]


@dataclass(frozen=True)
class Operation:
    """What to do.

    Attributes:
        kind: one of :data:`KINDS`.
        find: what is looked for (replace, remove, rename).
        text: what comes in its place, or in front, or behind.
        regex: ``find`` is a regular expression, ``text`` may name its groups.
        where: one of :data:`WHERE`: what ``find`` must be to count.
        case: upper and lower case differ.
        separator: what stands between tags.
        trigger: the dataset's trigger word, which keeps its case and its place in front.
        keep: so many tags in front are not sorted.
    """

    kind: str = "replace"
    find: str = ""
    text: str = ""
    regex: bool = False
    where: str = "anywhere"
    case: bool = False
    separator: str = ","
    trigger: str = ""
    keep: int = 0

    def __str__(self) -> str:
        """What it does, for people; its texts are as the user typed them."""
        return {
            "replace": f"Replace “{self.find}” by “{self.text}”",
            "remove": f"Remove “{self.find}”",
            "rename": f"Rename the tag “{self.find}” to “{self.text}”",
            "prefix": f"Put “{self.text}” in front",
            "suffix": f"Put “{self.text}” behind",
            "trigger": f"Put the trigger word “{self.text or self.trigger}” in front where it is missing",
            "dedupe": "Remove tags that are there twice",
            "sort": "Sort the tags",
            "sentence": "Make sentences of tags",
            "tags": "Make tags of sentences",
        }[self.kind]


def edit_of(operation: Operation) -> Edit:
    """What ``operation`` makes of a caption.

    Raises:
        DatasetError: it says too little, or its expression cannot be read; the function raises it for a caption on
            which the expression takes too long, or that would become too long.
    """
    if operation.kind in ("replace", "remove", "rename") and not operation.find:
        raise DatasetError("Nothing to look for", "the text to find is empty", "Type what to find.")
    if operation.kind in ("prefix", "suffix") and not operation.text.strip():
        raise DatasetError("Nothing to add", "the text is empty", "Type what to add.")
    if operation.kind == "trigger" and not (operation.text or operation.trigger).strip():
        raise DatasetError("No trigger word", "the configuration names none", "Type one.")
    edit = _EDITS[operation.kind](operation)

    def edited(text: str) -> str:
        new = edit(text)
        if len(new) > MAX_CAPTION_BYTES:
            raise DatasetError(
                "A caption would become too long",
                f"{len(new):,} characters; {MAX_CAPTION_BYTES // 1024} kB are read at most",
                "Find less, or put in less.",
            )
        return new

    return edited


# Find and replace


def _replace(operation: Operation) -> Edit:
    substitute = _substitution(operation)
    if operation.where != "tags":
        return substitute

    def in_tags(text: str) -> str:
        return _each_tag(text, operation.separator, substitute)

    return in_tags


def _substitution(operation: Operation) -> Edit:
    """What replaces in a text, or in one tag, all that is found."""
    whole = {"anywhere": "{}", "words": r"(?<!\w)(?:{})(?!\w)", "tags": r"\A(?:{})\Z"}[operation.where]
    if not operation.regex:
        plain = re.compile(whole.format(re.escape(operation.find)), 0 if operation.case else re.IGNORECASE)
        return lambda text: plain.sub(lambda _: operation.text, text)
    import regex  # type: ignore[import-untyped]  # has time limits; 50 ms that the first frame must not wait for

    pattern = _expression(regex, operation, whole)

    def substituted(text: str) -> str:
        try:
            return str(pattern.sub(operation.text, text, timeout=SLOWEST_S))
        except TimeoutError as err:
            raise DatasetError(
                "The expression takes too long",
                f"on one caption of {len(text):,} characters more than {SLOWEST_S:g} s: “{safe_text(text, 60)}”",
                "Repetition inside repetition, as in (a+)+, does that: write it without.",
            ) from err
        except (IndexError, regex.error) as err:
            raise _unreadable("The text to put in", operation.text, err) from err

    try:  # what is put in is read where something is found: have it read now
        regex.compile(f"(?:{operation.find})?").sub(operation.text, "")
    except (IndexError, regex.error) as err:
        raise _unreadable("The text to put in", operation.text, err) from err
    return substituted


def _expression(regex: Any, operation: Operation, whole: str) -> Any:
    flags = 0 if operation.case else regex.IGNORECASE
    try:
        regex.compile(operation.find, flags)  # alone first: columns are told of what the user typed
        return regex.compile(whole.format(operation.find), flags)
    except (regex.error, OverflowError, RecursionError) as err:
        raise _unreadable("The expression", operation.find, err) from err


def _unreadable(what: str, typed: str, err: Exception) -> DatasetError:
    column = getattr(err, "pos", None)
    at = f" at column {column + 1}" if isinstance(column, int) else ""
    return DatasetError(
        f"{what} cannot be read",
        f"{safe_text(getattr(err, 'msg', None) or err, 200)}{at} of “{safe_text(typed, 200)}”",
        r"A sign that stands for itself needs a \ before it, as in \( or \.",
    )


# Words and tags


def tags_of(text: str, separator: str = ",") -> list[str]:
    """The tags of a caption, in order; line breaks part them too."""
    return [tag.strip() for line in text.split("\n") for tag in _split(line, separator) if tag.strip()]


def _split(line: str, separator: str) -> list[str]:
    mark = separator.strip()
    return line.split(mark) if mark else [line]


def _joined(tags: list[str], separator: str) -> str:
    return f"{separator.strip() or ','} ".join(tags)


def _each_line(text: str, separator: str, change: Callable[[list[str]], list[str]]) -> str:
    """``text`` with the tags of each line changed; lines whose tags stay are left as they are, emptied ones go."""
    lines = []
    for line in text.split("\n"):
        tags = [tag.strip() for tag in _split(line, separator) if tag.strip()]
        new = change(tags)
        if new == tags:
            lines.append(line)
        elif new:
            lines.append(_joined(new, separator))
    return "\n".join(lines)


def _each_tag(text: str, separator: str, change: Edit) -> str:
    return _each_line(text, separator, lambda tags: [new for tag in tags if (new := change(tag).strip())])


def _remove(operation: Operation) -> Edit:
    """Tags that are the words go as a whole; elsewhere the words go, and the space that they leave."""
    words = re.compile(rf"(?<!\w){re.escape(operation.find.strip())}(?!\w)", 0 if operation.case else re.IGNORECASE)

    def without(tag: str) -> str:
        new, count = words.subn("", tag)
        return re.sub(r"[ \t]{2,}", " ", re.sub(r"[ \t]+([.;:!?])", r"\1", new)).strip() if count else tag

    def removed(text: str) -> str:
        new = _each_tag(text, operation.separator, without)
        return new if new == text or new.strip(" \t\n.,;:!?") else ""

    return removed


def _rename(operation: Operation) -> Edit:
    old, new = _as_compared(operation.find.strip(), operation.case), operation.text.strip()

    def renamed(tags: list[str]) -> list[str]:
        compared = [_as_compared(tag, operation.case) for tag in tags]
        if old not in compared:
            return tags
        there = _as_compared(new, operation.case)
        kept: list[str] = []
        taken = False
        for tag, key in zip(tags, compared, strict=True):
            if key not in (old, there):
                kept.append(tag)
            elif not taken and new:
                kept.append(new if key == old else tag)
                taken = True
        return kept

    return lambda text: _each_line(text, operation.separator, renamed)


def _as_compared(tag: str, case: bool) -> str:
    return tag if case else tag.casefold()


def _prefix(operation: Operation) -> Edit:
    def prefixed(text: str) -> str:
        before = operation.text
        if text.startswith(before) or text == before.strip():
            return text
        gap = "" if before[-1:].isspace() or text[:1].isspace() or _CLOSING.match(text) else " "
        return f"{before}{gap}{text}" if text else before.strip()

    return prefixed


def _suffix(operation: Operation) -> Edit:
    def suffixed(text: str) -> str:
        behind = operation.text
        if text.endswith(behind) or text == behind.strip():
            return text
        gap = "" if behind[:1].isspace() or text[-1:].isspace() or _CLOSING.match(behind) else " "
        return f"{text}{gap}{behind}" if text else behind.strip().lstrip(", ")

    return suffixed


def _trigger(operation: Operation) -> Edit:
    word = (operation.text or operation.trigger).strip()
    return lambda text: with_trigger(text, word)


def _dedupe(operation: Operation) -> Edit:
    def deduplicated(text: str) -> str:
        seen: set[str] = set()

        def first(tags: list[str]) -> list[str]:
            kept = []
            for tag in tags:
                if (key := tag.casefold()) not in seen:
                    seen.add(key)
                    kept.append(tag)
            return kept

        return _each_line(text, operation.separator, first)

    return deduplicated


def _sort(operation: Operation) -> Edit:
    trigger = operation.trigger.strip().casefold()

    def in_order(tags: list[str]) -> list[str]:
        front = max(operation.keep, 1 if trigger and tags and tags[0].casefold() == trigger else 0)
        return tags[:front] + sorted(tags[front:], key=lambda tag: (tag.casefold(), tag))

    return lambda text: _each_line(text, operation.separator, in_order)


def _sentence(operation: Operation) -> Edit:
    """``red_hair, sitting`` becomes ``Red hair, sitting.``; a text that ends like a sentence is one already."""
    trigger = operation.trigger.strip()

    def written_out(text: str) -> str:
        tags = tags_of(text, operation.separator)
        if not tags or text.rstrip()[-1] in ".!?":
            return text
        words = [tag if tag == trigger else re.sub(r"(?<=\w)_(?=\w)", " ", tag) for tag in tags]
        if words[0] != trigger:
            words[0] = words[0][0].upper() + words[0][1:]
        return _joined(words, operation.separator) + "."

    return written_out


def _tags(operation: Operation) -> Edit:
    """``Red hair, sitting. It is dark.`` becomes ``red hair, sitting, it is dark``."""
    trigger = operation.trigger.strip()

    def taken_apart(text: str) -> str:
        if not re.search(r"[.!?](\s|\Z)", text):
            return text
        tags: list[str] = []
        for sentence in _SENTENCE_END.split(text.strip()):
            parts = tags_of(sentence.rstrip(".!? "), operation.separator)
            if parts:
                parts[0] = parts[0] if parts[0].split()[0] == trigger else _lowered(parts[0])
            tags += parts
        return _joined(tags, operation.separator)

    return taken_apart


def _lowered(tag: str) -> str:
    """Without the capital of a sentence's beginning; names of capitals (NASA) and single letters keep theirs."""
    word = tag.split()[0]
    return tag[0].lower() + tag[1:] if word[1:].islower() or word in ("A", "An") else tag


_EDITS: dict[str, Callable[[Operation], Edit]] = {
    "replace": _replace,
    "remove": _remove,
    "rename": _rename,
    "prefix": _prefix,
    "suffix": _suffix,
    "trigger": _trigger,
    "dedupe": _dedupe,
    "sort": _sort,
    "sentence": _sentence,
    "tags": _tags,
}
