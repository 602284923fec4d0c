"""Asking torch and its libraries in a child: what comes back, and what does when the child dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.hardware import software
from engine.hardware.software import ask_software, installed, runs_on


def test_torch_and_what_it_sees_are_told() -> None:
    answers = ask_software(("torch", "cuda"))
    assert all(not answer.error for answer in answers.values())
    assert answers["torch"].values["version"].split("+")[0] == installed("torch").split("+")[0]
    assert isinstance(answers["cuda"].values["devices"], list)


def test_a_stage_that_fails_leaves_the_others_their_answers() -> None:
    answers = ask_software(("triton", "no such stage", "triton"))
    assert answers["no such stage"].error == "KeyError: 'no such stage'"
    assert answers["triton"].values["version"] == installed("triton")


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have every child run ``code`` in place of the module."""
    script = tmp_path / "child.py"
    script.write_text(code)
    run = subprocess.run
    monkeypatch.setattr(
        software.subprocess, "run", lambda command, **more: run([sys.executable, script, *command[3:]], **more)
    )


def test_a_child_that_crashes_or_hangs_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, sys; print('noise'); 'b' in sys.argv[1] and os.kill(os.getpid(), 11)\n"
    crash += "for name in sys.argv[1:]:\n    if name == 'b': os.kill(os.getpid(), 11)\n"
    crash += '    print(\'{"stage": "%s", "x": 1}\' % name, flush=True)\n'
    child(tmp_path, monkeypatch, crash)
    answers = ask_software(("a", "b", "c"))
    assert answers["a"].values == answers["c"].values == {"x": 1}
    assert "SIGSEGV" in answers["b"].error


def test_a_child_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(tmp_path, monkeypatch, 'import time; print(\'{"stage": "a"}\', flush=True); time.sleep(60)\n')
    answers = ask_software(("a", "b"), timeout_s=1.0)
    assert answers["a"].error == "" and answers["b"].error == "no answer in 1 s"


def test_a_child_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(tmp_path, monkeypatch, "raise SystemExit(7)")
    assert "code 7" in ask_software(("a",))["a"].error


@pytest.mark.parametrize(
    ("arches", "capability", "how"),
    [
        (["sm_75", "sm_80", "sm_86", "sm_90", "sm_120"], (8, 9), "native"),  # 8.6's code runs on 8.9
        (["sm_75", "sm_80", "sm_90"], (8, 6), "native"),
        (["sm_75", "sm_80", "sm_90"], (12, 0), ""),
        (["sm_75", "sm_90", "compute_90"], (12, 0), "translated"),
        (["sm_80", "sm_90"], (7, 5), ""),
        (["sm_89"], (8, 6), ""),  # older code runs on newer cards, never the other way
        (["sm_90a", "compute_120"], (9, 0), ""),
        (["sm_100", "sm_120"], (12, 1), "native"),
        (["gfx942"], (9, 4), ""),
        ([], (8, 6), ""),
    ],
)  # fmt: skip
def test_what_a_build_runs_on(arches: list[str], capability: tuple[int, int], how: str) -> None:
    assert runs_on(arches, capability) == how


def test_what_is_not_installed_has_no_version() -> None:
    assert installed("no-such-package-at-all") == ""
