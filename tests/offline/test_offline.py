"""Nothing goes out to the network unasked: commands and the workstation, with the network refused and watched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pocket import FILES, pocket_config

from engine.config_file import save_config
from tests.reliability import figure

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def child_environment(tmp_path: Path) -> dict[str, str]:
    """As a user has it: nothing says that libraries are to stay offline; the network is watched."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "HUGGING"))
    }
    own = {name: str(tmp_path / name) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")}
    paths = {"PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}", "KILN_ATTEMPTS": str(tmp_path / "attempts")}
    return kept | own | paths


def test_no_command_and_no_screen_reaches_for_the_network(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    sampling = {"prompts": [{"prompt": "a zorple"}], "every_epochs": 0, "at_start": False}
    save_config(pocket_config(tmp_path, training={"epochs": 1}, sampling=sampling), config)
    words = [str(config), str(tmp_path / "data"), str(FILES), str(tmp_path / "runs" / "test")]
    done = subprocess.run(
        [sys.executable, str(HERE / "all_commands.py"), *words],
        cwd=tmp_path, env=child_environment(tmp_path), capture_output=True, text=True, check=False, timeout=280,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    codes = dict(re.findall(r"^COMMAND (\S+) (\d+)$", done.stdout, re.MULTILINE))
    assert "look" in codes, done.stdout[-3000:] + done.stderr[-3000:]
    # The doctor may have something to say about this machine; everything else has nothing to complain of.
    failed = {name: code for name, code in codes.items() if code != "0" and name not in ("doctor", "plan")}
    assert not failed, done.stdout[-3000:] + done.stderr[-3000:]
    attempts = tmp_path / "attempts"
    assert not attempts.exists(), attempts.read_text()
    figure("network", "attempts to reach it, in all commands and the workstation", f"0 in {len(codes)}")


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    code = (
        "import socket, subprocess, sys, urllib.request\n"
        "for ask in (lambda: socket.getaddrinfo('huggingface.co', 443),\n"
        "            lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "            lambda: socket.socket().connect(('127.0.0.1', 9)),\n"
        "            lambda: urllib.request.urlopen('https://huggingface.co'),\n"
        "            lambda: subprocess.run(['curl', 'https://huggingface.co'])):\n"
        "    try: ask()\n"
        "    except OSError as err: print('refused' in str(err))\n"
        "ours, theirs = socket.socketpair()\n"
        "subprocess.run([sys.executable, '-P', '-c', 'import socket; socket.socket().connect((\"127.0.0.1\", 9))'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"] * 5, done.stdout + done.stderr
    assert len((tmp_path / "attempts").read_text().splitlines()) == 6


def test_importing_bitsandbytes_fetches_no_kernels() -> None:
    """It fetches native code where the package ``kernels`` is installed: no dependency of ours may bring it."""
    names = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r'"kernels\b', names)
    code = "import importlib.metadata as m; print([d.name for d in m.distributions() if d.name.lower() == 'kernels'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
