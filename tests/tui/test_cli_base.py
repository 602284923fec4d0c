"""The command line as a shell sees it: quick help, clear errors, exit codes, nothing heavy imported."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tui.__main__ import COMMANDS, main

HEAVY = ("torch", "transformers", "diffusers", "accelerate", "textual", "pydantic", "numpy", "PIL", "plotext")

CONFIG = """\
name = "cat"
[model]
transformer = "flux.safetensors"
autoencoder = "ae.safetensors"
clip_l = "clip.safetensors"
t5 = "t5.safetensors"
[[dataset.folders]]
path = "pictures"
"""


def kiln(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "tui", *words],
        cwd=cwd or root, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_help_imports_nothing_heavy_and_lists_every_command() -> None:
    code = "import sys; from tui.__main__ import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in eval(done.stderr)}
    assert not loaded & set(HEAVY)
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "kiln demo" in done.stdout and "exit codes" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: kiln {name}" in capsys.readouterr().out


def test_without_a_terminal_no_command_prints_help_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    told = capsys.readouterr()
    assert "kiln demo" in told.out and "no terminal" in told.err


def test_a_dumb_terminal_is_told_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdin", Tty())
    monkeypatch.setattr("sys.stdout", Tty())
    assert main([]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "'dumb'" in told and "kiln train RUN.toml" in told


class Tty(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    told = capsys.readouterr().out.split()[1]
    root = Path(__file__).resolve().parents[2]
    assert told == tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "x.toml"]) == 2
    assert "did you mean `kiln train`?" in capsys.readouterr().err
    assert main(["\x1b]0;x\x07"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train"], ["train", "a", "--nope"], ["sample", "x", "--size", "9x9"], ["config"]])
def test_bad_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "usage:" in capsys.readouterr().err


def test_environment_is_set_before_torch_could_read_it_and_the_users_choice_stays() -> None:
    code = "import os; from tui.__main__ import main; main([]); print(os.environ['OMP_WAIT_POLICY'])"
    root = Path(__file__).resolve().parents[2]
    bare = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    for environment, policy in ((bare, "PASSIVE"), ({**bare, "OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == policy


def test_a_missing_configuration_is_exit_code_2_with_a_hint(tmp_path: Path) -> None:
    done = kiln("train", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: The configuration cannot be read\n")
    assert "kiln new" in done.stderr and "Traceback" not in done.stderr


def test_a_bad_configuration_names_file_line_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG + "[lora]\nrnak = 4\n")
    assert main(["train", str(path)]) == 2
    assert f"{path}, line 10: lora.rnak is not a known key; did you mean lora.rank?" in capsys.readouterr().err


def test_new_writes_a_configuration_and_never_over_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "My cat!"]) == 0
    text = (tmp_path / "My-cat.toml").read_text()
    assert 'name = "My-cat"' in text
    assert main(["new", "My cat!"]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "My-cat.toml").read_text() == text


def test_config_check_lists_files_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    assert main(["config", "check", str(path)]) == 2
    assert f"reads model.t5               {tmp_path}/t5.safetensors   MISSING" in capsys.readouterr().out
    for name in ("flux", "ae", "clip", "t5"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "pictures").mkdir()
    assert main(["config", "check", str(path)]) == 0
    assert "The configuration is valid." in capsys.readouterr().out
    assert main(["config", "show", str(path)]) == 0
    assert "\nrank = 16\n" in capsys.readouterr().out


def test_ui_without_a_terminal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    done = kiln("train", str(path), "--ui")
    assert done.returncode == 2
    assert "Leave out --ui" in done.stderr


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(tmp_path)]) == 2
    assert "No run stands there" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    for number in range(2000):
        folder = tmp_path / f"run-{number:04d}-{'x' * 40}"
        folder.mkdir()
        (folder / "config.toml").touch()
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        f"{sys.executable} -m tui runs {tmp_path} | head -1", shell=True, cwd=root, capture_output=True, text=True
    )
    assert done.stdout.startswith("NAME")
    assert done.stderr == ""


def test_json_output_of_runs_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["runs", str(tmp_path)]) == 0
    assert "kiln demo" in capsys.readouterr().out
    assert main(["runs", str(tmp_path / "none")]) == 2
