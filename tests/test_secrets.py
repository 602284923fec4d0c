"""Tokens, keys and passwords: in nothing that a run writes, and in nothing that is shown or logged."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from pocket import finish, pocket_config

from engine import text as texts
from engine.errors import RunError
from engine.run import Run
from engine.text import HIDDEN, safe_text, without_secrets
from tests.reliability import figure
from tui.app import KilnApp
from tui.doctor.finding import Finding
from tui.error_text import error_text
from tui.terminal import host, host_log

TOKEN = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm"
WANDB = "0123456789abcdef" * 2 + "01234567"
PASSWORD = "correct-horse"
PLAIN = "just.a.word.of.ours"  # no form tells it: known by the environment alone
SECRETS = (TOKEN, WANDB, PASSWORD, PLAIN)
SPOKEN = f"401 for https://me:{PASSWORD}@hub.example/x: {TOKEN} {WANDB} {PLAIN}"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment with secrets in it."""
    for name, value in {"HF_TOKEN": TOKEN, "WANDB_API_KEY": WANDB, "MY_SECRET": PLAIN}.items():
        monkeypatch.setenv(name, value)
    texts._environment_secrets.cache_clear()
    yield
    texts._environment_secrets.cache_clear()


def leaks(shown: str) -> list[str]:
    """The secrets that stand in ``shown``."""
    return [secret for secret in SECRETS if secret in shown]


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (TOKEN, ""),
        (f"a {WANDB} b", "a b"),
        (f"https://me:{PASSWORD}@host/path", "https:// @host/path"),
        ("Authorization: Bearer abcdefghijk", "Authorization: Bearer"),
        ('{"api_key": "abcdefghijk"}', '{"api_key": " "}'),
        ("api_key='abcdefgh12', x=1", "api_key=' ', x=1"),
        ("token=abcdefghijk&x=1", "token= &x=1"),
        ("sk-proj-abcdefghijklmnop1234", ""),
        ("ghp_abcdefghijklmnop1234", ""),
    ],
)
def test_secrets_are_known_by_their_form(raw: str, kept: str) -> None:
    shown = without_secrets(raw)
    assert HIDDEN in shown
    assert " ".join(shown.replace(HIDDEN, " ").split()) == " ".join(kept.split())
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "raw",
    [
        "models--a--b/snapshots/" + "0a" * 20 + "/tokenizer.json", "77 tokens: 12 too many", "max_token_length = 512",
        "sha256 " + "0a" * 32, "model.t5_tokenizer: /home/me/models/t5/tokenizer.json", "https://hub.example/a/b",
        "a cat, sitting; password-less", "sk-learn and hf_hub", "secret garden",
    ],
)  # fmt: skip
def test_what_only_looks_like_one_stays(raw: str) -> None:
    assert without_secrets(raw) == raw


def test_a_secret_is_hidden_before_a_text_is_cut() -> None:
    assert TOKEN[:12] not in safe_text("x" * 30 + TOKEN, limit=45)


def test_nothing_that_a_failing_run_writes_or_tells_holds_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from engine.trainer import Trainer

    def fail(self: object, turn: object) -> None:
        held_in_a_local = TOKEN  # noqa: F841
        logging.getLogger("huggingface_hub").warning("warned: %s", SPOKEN)
        logging.getLogger("engine.models").warning("told: %s", SPOKEN)
        warnings.warn(SPOKEN, stacklevel=1)
        raise RuntimeError(SPOKEN)

    monkeypatch.setattr(Trainer, "_step", fail)
    run = finish(Run(pocket_config(tmp_path)))
    assert run.state == "failed"
    told = "\n".join(entry.to_json() for entry in run.events.since(0))
    assert HIDDEN in told and not leaks(told)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        assert not leaks(path.read_bytes().decode("latin-1")), path
    log = (run.folder.log if run.folder else Path()).read_text()
    assert log.count("401 for") >= 3 and "held_in_a_local = TOKEN" not in log
    assert not leaks("".join(capfd.readouterr()))
    figure("secrets", "secrets found in files and events of a run that fails", f"0 in {len(files)} files")


def test_a_lora_that_is_passed_on_holds_no_secret(tmp_path: Path) -> None:
    from engine.lora.metadata import read_metadata

    config = pocket_config(
        tmp_path,
        training={"epochs": 1},
        saving={"comment": f"with {TOKEN}", "author": PLAIN, "include_prompts": True},
        sampling={"prompts": [{"prompt": f"a {WANDB}"}], "every_epochs": 0, "at_start": False},
    )
    run = finish(Run(config))
    assert run.state == "finished" and run.folder is not None
    (lora,) = run.folder.root.glob("test.safetensors")
    assert not leaks(json.dumps(read_metadata(lora)))
    assert HIDDEN in read_metadata(lora)["ss_training_comment"]
    assert not any(os.environ["HOME"] in value for value in read_metadata(lora).values())


def test_errors_findings_and_crashes_are_shown_without(capfd: pytest.CaptureFixture[str]) -> None:
    assert not leaks(error_text(RunError(SPOKEN, SPOKEN, SPOKEN)))
    assert not leaks(json.dumps(Finding("software", "torch", "bad", SPOKEN, SPOKEN, SPOKEN).to_dict()))
    leaving = SimpleNamespace(leaving="leave", crash="", _close_messages_no_wait=lambda: None)
    broken = SimpleNamespace(leaving="", crash="", _close_messages_no_wait=lambda: None)
    try:
        held_in_a_local = TOKEN  # noqa: F841
        raise RuntimeError(SPOKEN + "\x1b]52;c;QQ==\x07")
    except RuntimeError as err:
        for app in (leaving, broken):
            KilnApp._fatal_error(app)  # type: ignore[arg-type]
        refused = host._unforeseen(err)
    assert "RuntimeError" in broken.crash and not leaks(broken.crash) and "\x1b" not in broken.crash
    assert not leaks(refused.detail)
    host_log.log_text(SPOKEN)
    logged = capfd.readouterr().err
    assert logged.count("401 for") == 3 and not leaks(logged) and "\x1b" not in logged
