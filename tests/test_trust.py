"""What the packages may not do, whoever asks: run what a file says, reach the network, believe a temporary name.

Looks at the source, like tests/test_house.py, which forbids pickles, eval and shells.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_house import ROOT, SOURCES, where
from trees import TREES, dropped_trees  # noqa: F401

NETWORK = {
    "socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "socketserver",
    "xmlrpc", "asyncio.streams", "huggingface_hub", "webbrowser",
}  # fmt: skip
MAY_TALK = {
    "tui/terminal/wire.py": "socket", "tui/terminal/place.py": "socket", "tui/terminal/host.py": "socket",
    "tui/terminal/process.py": "socket", "tui/terminal/reach.py": "socket",
    "engine/models/tokenizer_files.py": "huggingface_hub",
}  # fmt: skip
"""Who talks to others: five to the host's Unix socket, one fetches tokenizers where a configuration lets it."""

LOADERS = (
    "safetensors.torch.load",
    "safetensors.torch.load_file",
    "safetensors.safe_open",
    "safetensors.deserialize",
)
MAY_LOAD = {"engine/cache/store.py", "engine/training/checkpoint.py"}
"""Modules that hand bytes to the safetensors library, after our own check of the header."""

RUNNERS = {
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.call",
    "subprocess.check_output",
    "subprocess.check_call",
}
FORBIDDEN = re.compile(
    r"os\.(system|popen|exec\w+|spawn\w+)|pty\.spawn|yaml\.(load|unsafe_load|full_load)|torch\.hub\.\w+|tempfile\.mktemp"
    r"|subprocess\.get\w*output|ctypes\.CDLL|runpy\.\w+|code\.interact|compile|__import__|site\.addsitedir"
)
OWN_LIBRARIES = "ctypes.CDLL(None)"
"""What this process has loaded already; no file is named."""

FOREIGN = re.compile(r"\.(from_pretrained|from_single_file|hf_hub_download|snapshot_download)$")
CAPTIONERS = "engine/captioners/weights.py"
"""Loads whole folders with transformers: of this machine alone, no code from them, safetensors only."""
BUILDERS = "engine/models/pocket/build/"
"""Makes the pocket model anew, by hand, from what lies in the repository; no part of what runs."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in the packages, with the called thing as ``module.name`` where it was imported."""
    for path in SOURCES:
        if name_of(path).startswith(BUILDERS):
            continue
        known = imported(TREES[path])
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Call):
                first, dot, rest = ast.unparse(node.func).partition(".")
                yield path, node, known.get(first, first) + dot + rest


def imported(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_only_the_named_modules_import_what_reaches_others() -> None:
    found = {}
    for path in SOURCES:
        modules = {name for value in imported(TREES[path]).values() for name in (value, value.split(".")[0])}
        for module in sorted(modules & NETWORK):
            found[name_of(path)] = module
    assert found == MAY_TALK


def test_only_checked_headers_reach_the_library() -> None:
    found = {name_of(path) for path, _, name in calls() if name in LOADERS}
    assert found == MAY_LOAD
    for name in MAY_LOAD:
        assert "parse_header" in (ROOT / name).read_text(encoding="utf-8")


def test_nothing_runs_what_a_text_says() -> None:
    found = [(path, node, name) for path, node, name in calls() if FORBIDDEN.fullmatch(name)]
    assert not [f"{where(path, node)} {name}" for path, node, name in found if ast.unparse(node) != OWN_LIBRARIES]


def test_programs_are_started_by_lists_and_import_nothing_from_the_working_folder() -> None:
    bad = []
    started = [(path, node) for path, node, name in calls() if name in RUNNERS]
    assert started, "the rule looks at nothing"
    for path, node in started:
        command = node.args[0]
        if isinstance(command, ast.Name):  # assigned above, in the same function
            values = [
                each.value for each in ast.walk(TREES[path])
                if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == command.id
            ]  # fmt: skip
            command = values[0] if len(values) == 1 else command
        text = ast.unparse(command)
        python = "sys.executable" in text and not text.startswith("[sys.executable, '-P'")
        if python or not isinstance(command, ast.List):
            bad.append(f"{where(path, node)} {text}")
    assert not bad


def test_nothing_is_fetched_by_a_librarys_own_loader() -> None:
    found = {(name_of(path), name) for path, _, name in calls() if FOREIGN.search(f".{name}")}
    assert found == {
        ("engine/models/tokenizer_files.py", "huggingface_hub.hf_hub_download"),
        (CAPTIONERS, "transformers.AutoProcessor.from_pretrained"),
        (CAPTIONERS, "transformers.AutoModelForImageTextToText.from_pretrained"),
    }
    for path, call, name in calls():
        if name_of(path) == CAPTIONERS and FOREIGN.search(f".{name}"):
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert (given["local_files_only"], given["trust_remote_code"]) == ("True", "False")
            assert "Model" not in name or given["use_safetensors"] == "True"


def test_no_file_has_a_fixed_name_among_the_temporary_ones() -> None:
    found = [
        where(path, node)
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and re.search(r"(^|[\s\"'])/(tmp|var/tmp|dev/shm)\b", node.value)
    ]  # fmt: skip
    # The folder for sockets has the user's number in its name, and must be the user's alone: tests/pty/test_place.py.
    assert [each.split(":")[0] for each in found] == ["tui/terminal/place.py"]


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import subprocess\nsubprocess.run('ls')", "test_programs_are_started_by_lists"),
        (
            "import sys\nfrom subprocess import run\nrun([sys.executable, '-m', 'a'])",
            "test_programs_are_started_by_lists",
        ),
        ("from os import system\nsystem('ls')", "test_nothing_runs_what_a_text_says"),
        ("from safetensors import safe_open as o\no('a')", "test_only_checked_headers_reach_the_library"),
        ("import urllib.request", "test_only_the_named_modules_import_what_reaches_others"),
        ("from transformers import CLIPModel\nCLIPModel.from_pretrained('a')", "test_nothing_is_fetched"),
        ("open('/tmp/kiln.log')", "test_no_file_has_a_fixed_name_among_the_temporary_ones"),
    ],
)
def test_the_rules_see_what_they_forbid(source: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "engine" / "made_up.py"
    monkeypatch.setitem(TREES, path, ast.parse(source))
    monkeypatch.setitem(globals(), "SOURCES", [*SOURCES, path])
    (broken,) = [each for name, each in globals().items() if name.startswith(rule) and callable(each)]
    with pytest.raises(AssertionError, match="made_up"):
        broken()
