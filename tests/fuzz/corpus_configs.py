"""Hostile configurations, made by code: the bytes, and the words with which each is refused."""

from __future__ import annotations

from tests.fuzz.targets_texts import CONFIG


def broken() -> dict[str, tuple[bytes, str]]:
    """Files that no reader of TOML of ours takes: configurations, recipes, tiers, settings, themes, dataset notes."""
    return {
        "depth-arrays": (b"a = " + b"[" * 3000 + b"]" * 3000, "nested too deeply"),
        "depth-tables": (b"a = " + b"{a = " * 3000 + b"1" + b"}" * 3000, "nested too deeply"),
        "dotted-5000": (b"a" + b".a" * 5000 + b" = 1", "nested too deeply"),
        "dotted-header": (b"[a" + b".a" * 5000 + b"]", "nested too deeply"),
        "large": (b"# " + b"x" * 262_144, "more than 256 kB"),
        "digits": (b"a = " + b"9" * 100_000, "a number with thousands of digits"),
        "bom": (b"\xef\xbb\xbfname = 1", "byte order mark"),
        "utf-16": ("name = 1".encode("utf-16"), "byte order mark"),
        "latin-1": (b'a = 1\nname = "\xe9"', "line 2: byte 0xe9 is no UTF-8"),
        "nul": (b'name = "a\0b"', "line 1"),
        "escape": (b'name = "a\x1b]52;c;QQ==\x07b"', "line 1"),
        "twice": (b"name = 1\nname = 2", "line 2"),
        "unclosed": (b'name = "a', "line 1"),
        "quote-breaks-out": (b'name = "a"\nb"', "line 2"),
    }


def refused() -> dict[str, tuple[str, str]]:
    """TOML that no configuration of a run is, and why: lines of :data:`CONFIG` with something in their place."""
    table = {
        "rank-nan": ("rank = 4", "rank = nan", "lora.rank is nan; it should be a valid integer"),
        "rank-negative": ("rank = 4", "rank = -1", "lora.rank"),
        "rank-huge": ("rank = 4", "rank = 1" + "0" * 4000, "lora.rank"),
        "rate-nan": ("learning_rate = 1e-4", "learning_rate = nan", "optimizer.learning_rate"),
        "rate-inf": ("learning_rate = 1e-4", "learning_rate = inf", "optimizer.learning_rate"),
        "rate-negative": ("learning_rate = 1e-4", "learning_rate = -1.0", "optimizer.learning_rate"),
        "batch-huge": ("[optimizer]", "[training]\nbatch_size = 1000000000\n[optimizer]", "training.batch_size"),
        "epochs-negative": ("[optimizer]", "[training]\nepochs = -1\n[optimizer]", "training.epochs"),
        "repeats-huge": ("repeats = 2", "repeats = 1" + "0" * 30, r"dataset.folders\[1\].repeats"),
        "unknown-key": ("rank = 4", "rnak = 4", "lora.rnak is not a known key"),
        "class-key": ("rank = 4", "__class__ = 'os.system'", "lora.__class__ is not a known key"),
        "init-table": ("[optimizer]", "[__init__.__globals__]\na = 1\n[optimizer]", "__init__ is not a known key"),
        "escape-key": ("rank = 4", '"\\u001b]0;t\\u0007" = 4', r"lora.\\x1b\]0;t\\x07 is not a known key"),
        "tilde": ("'t5.safetensors'", '"~root/t5.safetensors"', "model.t5 .*~ is not expanded"),
        "nul-path": ("'t5.safetensors'", '"a\\u0000b"', "model.t5 .*is no path"),
        "long-path": ("'t5.safetensors'", '"' + "a/" * 3000 + '"', "model.t5 .*is no path"),
        "address": ("'t5.safetensors'", '"https://me:secret-word@host/t5"', "model.t5 .*is an address"),
        "date": ("rank = 4", "rank = 2020-01-01", "lora.rank is a date"),
        "device": ("[optimizer]", "[training]\ndevice = 'cuda:0; rm -rf /'\n[optimizer]", "training.device"),
        "later-version": ('name = "a"', 'name = "a"\nversion = 999', "version 999"),
    }  # fmt: skip
    return {name: (CONFIG.replace(line, other, 1), why) for name, (line, other, why) in table.items()}


def many_tables() -> bytes:
    """A file of tables that nobody knows, as many as go into the largest that is read."""
    return "\n".join(f"[t{number}]" for number in range(29_000)).encode()
