"""Makes the pocket model's two tokenizers in the file formats of the real ones.

CLIP's side is a lower-casing byte-pair encoding with ``</w>`` (vocab.json, merges.txt), trained on the
grammar's words until each is one token; T5's side is a unigram model (tokenizer.json) with the same words and
single characters below them. Any other word falls to pieces, never to nothing.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from engine.models.pocket.build import constants as c
from engine.models.pocket.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, TEXTURES

FUNCTION_WORDS = ("a", "and", "at", "the", "in", "on", "with", "eyes", "background", "of")
WORDS = sorted({*SHAPES, *COLOURS, *BACKGROUNDS, *POSITIONS, *TEXTURES[1:], *FUNCTION_WORDS})
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_'.,:;!?()&/+\"#"


def byte_alphabet() -> list[str]:
    """GPT-2's and CLIP's 256 printable stand-ins for bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(hidden))]


def train_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every word is one symbol."""
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for parts in split.values() for pair in itertools.pairwise(parts))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = {word: merge(parts, best) for word, parts in split.items()}


def merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of a pair of symbols."""
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def write_clip(folder: Path) -> None:
    """Write CLIP's tokenizer; the end token has the highest id, as the pooled state's position needs."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = byte_alphabet()
    merges = train_merges(WORDS)
    symbols = [*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges)]
    symbols = [*dict.fromkeys(symbols), "<|startoftext|>", "<|endoftext|>"]
    vocab = {symbol: i for i, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), "utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": c.CLIP_TOKENS, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **special}, indent=1), "utf-8")


def write_t5(folder: Path) -> None:
    """Write T5's tokenizer: pad 0, end 1, unknown 2."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -100.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [("▁", -6.0), *((character, -10.0) for character in CHARACTERS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": c.T5_TOKENS, "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **special}, indent=1), "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1), "utf-8")


class Tokens:
    """Both tokenizers as the training stages need them: a caption to two padded id lists, remembered."""

    def __init__(self, files: Path) -> None:
        from transformers import CLIPTokenizer

        self.clip = CLIPTokenizer.from_pretrained(str(files / "tokenizer"))
        self.t5 = Tokenizer.from_file(str(files / "tokenizer_2" / "tokenizer.json"))
        self.known: dict[str, tuple[list[int], list[int]]] = {}

    def __call__(self, text: str) -> tuple[list[int], list[int]]:
        """(CLIP ids, T5 ids), padded and cut to the fixed lengths."""
        if text not in self.known:
            clip = self.clip(text, padding="max_length", truncation=True, max_length=c.CLIP_TOKENS)["input_ids"]
            t5 = self.t5.encode(text).ids
            t5 = t5 if len(t5) <= c.T5_TOKENS else [*t5[: c.T5_TOKENS - 1], 1]
            pair = (list(clip), t5 + [0] * (c.T5_TOKENS - len(t5)))
            if len(self.known) > 200_000:
                self.known.clear()
            self.known[text] = pair
        return self.known[text]
