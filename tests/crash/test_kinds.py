"""Who reads files: every module of the product that does is told of in the registry of kinds, or excused by name."""

from __future__ import annotations

import ast
from pathlib import Path

from kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "profiles", "tui")

READS = frozenset({
    "open_regular", "read_limited", "file_digest", "read_bytes", "read_text", "fdopen", "load_file", "safe_open",
    "from_pretrained", "from_file", "from_str", "unsealed", "mmap", "pread", "preadv", "readinto",
})  # fmt: skip
"""Functions and methods, by their last name, that read a file or what was read of one."""

READS_OF = frozenset({
    ("", "open"), ("io", "open"), ("os", "open"), ("Image", "open"), ("json", "load"), ("json", "loads"),
    ("tomllib", "load"), ("tomllib", "loads"), ("tomlkit", "parse"), ("tomlkit", "load"), ("torch", "load"),
    ("np", "load"), ("numpy", "load"), ("pickle", "load"), ("pickle", "loads"), ("path", "open"), ("file", "open"),
    ("temp", "open"),
})  # fmt: skip
"""Those whose last name says too little: with what stands before the dot."""

EXCUSED = {
    "engine.cache.masks": "digests of masks: damaged ones are the corpus of the decoder's tests",
    "engine.captioners.tagger": "an ONNX graph, which onnxruntime reads; the list of tags has a kind",
    "engine.captioners.weights": "others' weights, read by transformers: somebody looks at every answer",
    "engine.config_writer": "edits the text of a configuration that engine.config_file has read and checks again",
    "engine.dataset.decoder_pipe": "messages of the decoder's process, which may be hostile: its tests",
    "engine.dataset.decoder_child": "pictures: the corpus of the decoder's tests",
    "engine.dataset.mend": "captions of unknown encoding, whose text people read before it is believed: its tests",
    "engine.dataset.regular": "hands out bytes of any file; who asks for them is listed",
    "engine.dataset.scan": "digests of pictures: damaged ones are the corpus of the decoder's tests",
    "engine.files": "asks for locks, flushes, and reads the system's files of this process",
    "engine.hardware.disks": "the system's files",
    "engine.hardware.host": "the system's files",
    "engine.leftovers": "asks for locks on temporary files",
    "engine.line_file": "appends lines, which engine.events reads",
    "engine.training.room": "writes a reserve of nothing",
    "engine.hardware.machine": "the system's files",
    "engine.hardware.nvml": "the system's files",
    "engine.hardware.others": "the system's files",
    "engine.hardware.software": "a child's answer, of its own fixed form",
    "engine.lora.metadata": "a hash of some bytes of a base model, for its name",
    "engine.memory.pinned": "memory without a file",
    "engine.models.parts": "values in a header that engine.models.header has read strictly",
    "engine.models.pocket.build.draws": "a tool that makes the pocket model; no part of the product reads with it",
    "engine.models.pocket.build.vocabulary": "a tool that makes the pocket model",
    "engine.run": "appends to the log",
    "engine.sealed": "reads no file: what it is given",
    "engine.training.prepare": "digests of pictures, for the run's identity",
    "engine.toml_positions": "pieces of a text that engine.config_file has read",
    "tui.__main__": "the empty device",
    "tui.commands.new": "makes a file",
    "tui.commands.plan": "a value on the command line",
    "tui.commands.prompts": "edits a configuration that engine.config_file reads and checks again",
    "tui.foreground": "the empty device",
    "tui.headless": "the empty device",
    "tui.last_words": "the system's files",
    "tui.outside": "the last words of a program of the user's, for people",
    "tui.screens.form_writing": "compares a file's text with what is to be written",
    "tui.screens.outside": "what the user's editor wrote, read as any caption is",
    "tui.setup.choices": "values of the form, which the session keeps",
    "tui.setup.form": "values of the form, which the session keeps",
    "tui.setup.prompts": "values of the form, which the session keeps",
    "tui.sweep": "values on the command line",
    "tui.sweep_run": "the sweep's log, which it appends to, and the empty device",
    "tui.symptoms": "an event's text",
    "tui.terminal.attach": "the last lines of a log, for people",
    "tui.terminal.driver": "terminals",
    "tui.terminal.host_log": "appends to the log",
    "tui.terminal.modes": "terminals",
    "tui.terminal.user_editor": "terminals",
    "tui.terminal.wire": "messages of a socket, which may be hostile: its tests",
    "tui.wizard.lengths": "an answer in the wizard, which the session keeps",
}
"""Modules that read what no kind stands for, each with its reason."""


def calls(path: Path, names: frozenset[str], qualified: frozenset[tuple[str, str]] = frozenset()) -> bool:
    """Whether a module calls one of ``names``, or one of ``qualified`` with what stands before its dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            found = called.id in names or ("", called.id) in qualified
        elif isinstance(called, ast.Attribute):
            before = ast.unparse(called.value).rsplit(".", 1)[-1]
            found = called.attr in names or (before, called.attr) in qualified
        else:
            continue
        if found:
            return True
    return False


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
READERS = {name_of(path) for path in SOURCES if calls(path, READS, READS_OF)}
COVERED = {module for kind in KINDS for module in kind.modules}


def test_every_module_that_reads_files_has_its_kind_registered() -> None:
    unknown = sorted(READERS - COVERED - EXCUSED.keys())
    assert not unknown, f"register what these read in tests/crash/kinds.py, or say here why not: {unknown}"


def test_nothing_is_excused_without_need() -> None:
    assert not sorted(EXCUSED.keys() - READERS), "they read no file (any more)"
    assert not sorted(EXCUSED.keys() & COVERED)


def test_kinds_name_modules_that_read() -> None:
    assert not sorted(COVERED - {name_of(path) for path in SOURCES})
    assert all(kind.modules and kind.promise for kind in KINDS)
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_no_file_is_mapped() -> None:
    """Whoever cuts a file that is mapped here would end the process with SIGBUS; what is read is copied."""
    mapping = frozenset({"safe_open", "load_file", "mmap", "memmap", "from_file"})
    guilty = {name_of(path) for path in SOURCES if calls(path, mapping)}
    # Memory without a file; and tools that make the pocket model.
    assert guilty == {
        "engine.memory.pinned", "engine.models.pocket.build.draws", "engine.models.pocket.build.vocabulary",
    }  # fmt: skip
