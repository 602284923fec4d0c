"""CLIP's and T5's tokenizers: text to padded ids, from the files people already have.

Stands alone, and free of torch and transformers, because captions are counted (in the dataset check, in the
screen) long before a model is loaded. Ids equal transformers' (tested); the work is done by the `tokenizers`
library. T5's ``spiece.model`` is read here and becomes the same tokenizer that a ``tokenizer.json`` describes.
Where the files come from is :mod:`engine.models.tokenizer_files`'s business.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from engine.errors import ModelFileError
from engine.models.tokenizer_files import find_clip_files, find_t5_files, json_kind
from engine.text import safe_text

Ids = list[list[int]]
Masks = list[list[bool]]


class ClipTokenizer:
    """CLIP's byte-pair tokenizer: start mark, text, end mark, padded with the end mark."""

    def __init__(self, core: Tokenizer, fingerprint: str) -> None:
        self._core = core
        self.fingerprint = fingerprint
        self.vocab_size: int = core.get_vocab_size()
        self.end: int = self.vocab_size - 1
        self.start: int = self.vocab_size - 2

    def encode(self, texts: list[str], length: int) -> tuple[Ids, Masks]:
        """Ids and masks (True on start, text and end), each text padded or cut to ``length``, marks included."""
        bodies = [_ids(self._core, text)[: length - 2] for text in texts]
        rows = [[self.start, *body, self.end] for body in bodies]
        return _padded(rows, length, self.end)

    def count(self, text: str) -> int:
        """Tokens of ``text``, both marks included: more than the model's length (77) means it will be cut."""
        return len(_ids(self._core, text)) + 2

    def cut(self, text: str, length: int) -> int | None:
        """The character at which the first token begins that does not fit into ``length``; None where all fit."""
        return _cut(self._core, text, length - 2)

    def pieces(self, word: str) -> list[str]:
        """What a word is taken apart into, as plain text."""
        return [piece.removesuffix("</w>") for piece in self._core.encode(word, add_special_tokens=False).tokens]


class T5Tokenizer:
    """T5's unigram tokenizer: text and end mark, padded with 0."""

    end, pad = 1, 0

    def __init__(self, core: Tokenizer, fingerprint: str) -> None:
        self._core = core
        self.fingerprint = fingerprint
        self.vocab_size: int = core.get_vocab_size()

    def encode(self, texts: list[str], length: int) -> tuple[Ids, Masks]:
        """Ids and masks (True on text and end), each text padded or cut to ``length``, the mark included."""
        rows = [[*_ids(self._core, text)[: length - 1], self.end] for text in texts]
        return _padded(rows, length, self.pad)

    def count(self, text: str) -> int:
        """Tokens of ``text``, the end mark included: more than the length in use (512, 256) means it will be cut."""
        return len(_ids(self._core, text)) + 1

    def cut(self, text: str, length: int) -> int | None:
        """The character at which the first token begins that does not fit into ``length``; None where all fit."""
        return _cut(self._core, text, length - 1)

    def pieces(self, word: str) -> list[str]:
        """What a word is taken apart into, as plain text."""
        pieces = (piece.removeprefix("▁") for piece in self._core.encode(word, add_special_tokens=False).tokens)
        return [piece for piece in pieces if piece]


def _ids(core: Tokenizer, text: str) -> list[int]:
    ids: list[int] = core.encode(_whole(text), add_special_tokens=False).ids
    return ids


def _whole(text: str) -> str:
    # A lone surrogate (an undecodable byte of a file name) cannot be tokenized; it becomes a replacement mark.
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut(core: Tokenizer, text: str, fitting: int) -> int | None:
    offsets: list[tuple[int, int]] = core.encode(_whole(text), add_special_tokens=False).offsets
    if len(offsets) <= fitting:
        return None
    at = offsets[fitting][0]
    # The space before a word belongs to T5's token of the word.
    return at + len(text[at:]) - len(text[at:].lstrip()) if text[at : at + 1].isspace() else at


def _padded(rows: Ids, length: int, pad: int) -> tuple[Ids, Masks]:
    masks = [[True] * len(row) + [False] * (length - len(row)) for row in rows]
    return [row + [pad] * (length - len(row)) for row in rows], masks


def load_clip_tokenizer(weights: Path, given: Path | None = None, download: bool = False) -> ClipTokenizer:
    """The CLIP tokenizer for the encoder at ``weights``.

    Args:
        weights: the encoder's file; the search begins beside it.
        given: a file or folder that settings name; then nothing else is tried.
        download: fetch the files from the Hugging Face hub where nothing is found.

    Raises:
        ModelFileError: none is found (says which files to put where), or the files are damaged.
    """
    files = find_clip_files(weights, given, download)
    data = [_read(path) for path in files]
    core = _clip_core(files, data)
    tokenizer = ClipTokenizer(core, _digest(data))
    for name, wanted in (("<|startoftext|>", tokenizer.start), ("<|endoftext|>", tokenizer.end)):
        if core.token_to_id(name) != wanted:
            raise _damaged(files[0], f"{name} has the id {core.token_to_id(name)}, expected {wanted}")
    return tokenizer


def load_t5_tokenizer(weights: Path, given: Path | None = None, download: bool = False) -> T5Tokenizer:
    """The T5 tokenizer for the encoder at ``weights``; arguments and errors as for CLIP's."""
    path = find_t5_files(weights, given, download)[0]
    data = _read(path)
    core = _from_json(path, data, "Unigram") if path.suffix == ".json" else _from_spiece(path, data)
    for name, wanted in (("<pad>", 0), ("</s>", 1)):
        if core.token_to_id(name) != wanted:
            raise _damaged(path, f"{name} has the id {core.token_to_id(name)}, expected {wanted}")
    return T5Tokenizer(core, _digest([data]))


def _digest(data: list[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in data:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise ModelFileError("A tokenizer file could not be read", f"{safe_text(path, 400)}: {err}", "") from err


def _damaged(path: Path, detail: str) -> ModelFileError:
    return ModelFileError(
        "A tokenizer file is damaged", f"{safe_text(path, 400)}: {detail}", "Get it from its publisher again."
    )


class _Explained:
    """Turns what malformed tokenizer files raise, in our parsing and in the library, into a ModelFileError.

    The library raises the bare class Exception and its Rust panics; those two are compared by identity and name,
    so that nothing else is caught.
    """

    _KINDS = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, trace: object) -> None:
        if kind is None or err is None:
            return
        if kind is Exception or kind.__name__ == "PanicException" or issubclass(kind, self._KINDS):
            raise _damaged(self._path, safe_text(err, 200)) from err


_UNKNOWN = "\U0010ffff \u0378"
"""What no vocabulary has."""


def _from_json(path: Path, data: bytes, kind: str) -> Tokenizer:
    """A ``tokenizer.json`` without its own padding and truncation."""
    with _Explained(path):
        found = json_kind(data)
        core = Tokenizer.from_str(data.decode("utf-8"))
        _ids(core, _UNKNOWN)  # one that cannot say "unknown" fails at the first word that it does not know
    if found != kind:
        raise _damaged(path, f"it describes a {safe_text(found, 40)} tokenizer, expected {kind}")
    core.no_padding()
    core.no_truncation()
    return core


def _clip_core(files: tuple[Path, ...], data: list[bytes]) -> Tokenizer:
    """From ``vocab.json`` and ``merges.txt``, or from a ``tokenizer.json``."""
    if len(files) == 1:
        return _from_json(files[0], data[0], "BPE")
    with _Explained(files[0]):
        vocab = json.loads(data[0])
        lines = data[1].decode("utf-8").splitlines()
        merges = [(a, b) for a, b in (line.split(" ") for line in lines if line and not line.startswith("#version"))]
        core = Tokenizer(models.BPE(vocab, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return core


_EXTRA_IDS = 100


def _from_spiece(path: Path, data: bytes) -> Tokenizer:
    """SentencePiece's model as the tokenizer that T5's ``tokenizer.json`` describes, sentinels included."""
    with _Explained(path):
        pieces, charsmap = _parse_spiece(data)
        if len(pieces) < 3:
            raise ValueError(f"{len(pieces)} pieces are no SentencePiece model")
        pieces += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(_EXTRA_IDS))]
        core = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
        core.normalizer = normalizers.Precompiled(charsmap)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    core.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    core.add_special_tokens(["<pad>", "</s>", "<unk>", *(f"<extra_id_{n}>" for n in range(_EXTRA_IDS))])
    return core


def _parse_spiece(data: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with scores (field 1) and the normalizer's character map (field 3.2) of the protobuf."""
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = dict(_fields(value))
            score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
            pieces.append((piece[1].decode("utf-8"), score))
        elif number == 3 and isinstance(value, bytes):
            charsmap = dict(_fields(value)).get(2, b"")
    # The three marks have no score of their own; transformers gives them 0.
    return [(piece, 0.0 if index < 3 else score) for index, (piece, score) in enumerate(pieces)], charsmap


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Walk a protobuf message: (field number, value); fixed-size and nested values as bytes, varints as int."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {at} passes the end")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError(f"a number at byte {at} does not end")
