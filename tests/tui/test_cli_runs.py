"""`kiln runs`, `kiln sample` and `kiln train --resume`: what is read from run folders."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from engine.config import PromptConfig, RunConfig
from engine.config_file import load_config
from engine.errors import RunError
from engine.events import (
    CheckpointSaved,
    Event,
    EventLog,
    RunDone,
    RunFailed,
    RunStarted,
    SampleSaved,
    StateChanged,
    StepDone,
)
from engine.files import RunFolder, create_run_folder
from tui.__main__ import main
from tui.commands import sample
from tui.run_list import latest_unfinished, list_runs
from tui.run_shelf import read_cards

CONFIG = """\
name = "cat"
[model]
transformer = "flux.safetensors"
autoencoder = "ae.safetensors"
clip_l = "clip.safetensors"
t5 = "t5.safetensors"
[[dataset.folders]]
path = "pictures"
[[sampling.prompts]]
prompt = "a cat"
"""


def make_run(runs_dir: Path, name: str, *ending: Event, steps: int = 6) -> RunFolder:
    """A run's folder with events, as a run leaves it."""
    folder = create_run_folder(runs_dir, name)
    folder.config.write_text(CONFIG)
    log = EventLog(folder.events)
    log.append(RunStarted(folder.name, str(folder.root), "flux1", "dev", 3, 9, 4))
    log.append(StateChanged("training"))
    for number in range(1, steps + 1):
        log.append(StepDone(number, 1 + (number - 1) // 3, 1.0 / number, 1e-4, 1.0, 0.1, 0.0, 0.1, 0.0))
    lora = folder.lora(2, steps, "epoch")
    lora.touch()
    log.append(CheckpointSaved(str(lora), steps, 2, "epoch", 10))
    for event in ending:
        log.append(event)
    log.close()
    return folder


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    make_run(folder, "cat", RunDone("finished", 6, 2, "", 61.0), StateChanged("finished"))
    make_run(folder, "cat", RunDone("stopped", 6, 2, "", 5.0), StateChanged("stopped"))
    make_run(folder, "dog", RunFailed("The disk is full", "at \x1b[2J", "", "Traceback"), StateChanged("failed"))
    make_run(folder, "cut")
    (folder / ".cache").mkdir()
    (folder / "no run").mkdir()
    return folder


def test_runs_are_listed_with_state_and_figures(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs_dir)]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["cat"][1:4] == ["finished", "2/3", "6/9"]
    assert rows["cat"][5] == "01:01"
    assert rows["cat-2"][1] == "stopped"
    assert rows["dog"][1] == "failed"
    assert rows["cut"][1] == "interrupted"
    assert len(rows) == 5
    assert main(["runs", "--json", str(runs_dir)]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert listed["cat"]["loras"] == [str(runs_dir / "cat/cat-e0002.safetensors")]


def test_the_newest_lora_is_the_one_written_last(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file saved by hand is named by its step, and its name comes after those of later epochs."""
    folder = runs_dir / "cat"
    for age, name in ((9, "cat-s000003.safetensors"), (5, "cat-e0002.safetensors"), (1, "cat-e0003.safetensors")):
        (folder / name).touch()
        os.utime(folder / name, (1_700_000_000 - age,) * 2)
    assert main(["runs", str(runs_dir)]) == 0
    assert "cat-e0003.safetensors and 2 more" in capsys.readouterr().out
    (card,) = read_cards([folder], {})
    assert [path.name for path, _ in card.files][::2] == ["cat-s000003.safetensors", "cat-e0003.safetensors"]


def test_a_run_whose_lock_is_held_is_running(runs_dir: Path) -> None:
    with open(runs_dir / "cut/run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        states = {run.name: run.state for run in list_runs(runs_dir)}
    assert states["cut"] == "training"


def test_show_and_compare(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs-dir", str(runs_dir), "show", "dog"]) == 0
    out = capsys.readouterr().out
    assert "Run dog failed at step 6 of 9" in out
    assert "It failed: The disk is full. at \\x1b[2J" in out
    assert main(["runs", "--runs-dir", str(runs_dir), "compare", "cat", str(runs_dir / "cut")]) == 0
    assert "loss" in capsys.readouterr().out
    assert main(["runs", "--runs-dir", str(runs_dir), "show", "cow"]) == 2
    assert "There are: cat, cat-2," in capsys.readouterr().err
    assert main(["runs", "compare", "cat"]) == 2


def test_runs_where_the_setup_form_puts_them_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 2
    assert "Name the folder" in capsys.readouterr().err
    make_run(Path("model"), "cat", RunDone("stopped", 6, 2, "", 5.0), StateChanged("stopped"))
    assert main(["runs"]) == 0 and "cat   stopped" in capsys.readouterr().out
    make_run(Path("runs"), "dog")
    assert main(["runs"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["cat", "dog"]
    assert main(["runs", "compare", "cat", "dog"]) == main(["runs", "show", "cat"]) == 0
    assert main(["runs", "show", "cow"]) == 2
    assert "cow in runs or model" in capsys.readouterr().err


def test_the_files_of_a_moved_run_are_shown_where_they_are(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = (runs_dir / "cat").rename(runs_dir / "moved")
    log = EventLog(moved / "events.jsonl")
    log.append(SampleSaved("/etc/../home/other/secret.png", 6, 2, 0, "p", 1))
    log.close()
    assert main(["runs", "show", str(moved)]) == 0
    out = capsys.readouterr().out
    assert f"LoRA    {moved}/cat-e0002.safetensors" in out
    assert f"Samples {moved}/samples/secret.png" in out
    assert str(runs_dir / "cat/") not in out.replace(str(moved), "")


def test_damaged_event_files_are_read_as_far_as_they_go(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = runs_dir / "cat/events.jsonl"
    events.write_bytes(events.read_bytes()[:400] + b'\n\xff\xfe{"type": "StepDone", "seq"\n[]\n')
    (runs_dir / "dog/events.jsonl").unlink()
    assert main(["runs", str(runs_dir)]) == 0
    assert "cat " in capsys.readouterr().out


def test_resume_takes_the_newest_unfinished_run_of_the_name(runs_dir: Path) -> None:
    assert latest_unfinished(runs_dir, "cat") == runs_dir / "cat-2"
    assert latest_unfinished(runs_dir, "cut") == runs_dir / "cut"
    with pytest.raises(RunError, match="no run of that name"):
        latest_unfinished(runs_dir, "ca")
    (runs_dir / "cat-2/config.toml").unlink()
    with pytest.raises(RunError, match=r"cat \(finished\)"):
        latest_unfinished(runs_dir, "cat")


class Drawn:
    """Stands for engine.jobs.sample_pictures and notes what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("engine.jobs.sample_pictures", self)

    def __call__(
        self, config: RunConfig, lora: Path | None, prompts: tuple[PromptConfig, ...], out: Path, *_: object
    ) -> list[Path]:
        self.config, self.lora, self.prompts, self.out = config, lora, prompts, out
        return [out] * len(prompts)


def test_sample_of_a_run_uses_its_last_lora(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    folder = runs_dir / "cat"
    assert main(["sample", str(folder), "--prompt", "x", "--prompt", "y", "--seed", "5", "--size", "64x96"]) == 0
    assert drawn.lora == folder / "cat-e0002.safetensors"
    assert drawn.out == folder / "samples/by-hand"
    assert [(one.prompt, one.seed, one.width, one.height) for one in drawn.prompts] == [
        ("x", 5, 64, 96),
        ("y", 5, 64, 96),
    ]
    assert main(["sample", str(folder), "--lora", "none", "--steps", "3", "--guidance", "2"]) == 0
    assert drawn.lora is None
    assert drawn.prompts == (PromptConfig(prompt="a cat", steps=3, guidance=2.0),)
    (folder / "cat-e0002.safetensors").unlink()
    assert main(["sample", str(folder)]) == 2


def test_sample_of_a_configuration_uses_the_lora_named(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = Drawn(monkeypatch)
    path = runs_dir / "cat/config.toml"
    assert main(["sample", str(path), "--lora", "my.safetensors", "--out", str(runs_dir / "out")]) == 0
    assert (drawn.lora, drawn.out) == (Path("my.safetensors"), runs_dir / "out")
    assert main(["sample", str(path)]) == 0
    assert drawn.lora is None
    path.write_text(CONFIG.split("[[sampling")[0])
    assert main(["sample", str(path)]) == 2
    assert "--prompt" in capsys.readouterr().err


def test_what_is_given_replaces_what_the_configured_prompts_say(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(monkeypatch)
    folder = str(runs_dir / "cat")
    assert main(["sample", folder, "--seed", "7", "--negative", "a dog", "--cfg", "3"]) == 0
    assert drawn.prompts == (PromptConfig(prompt="a cat", seed=7, negative="a dog"),)
    assert drawn.config.sampling.cfg == 3.0
    assert main(["sample", folder, "--prompt", "x", "--negative", "a dog", "--cfg", "2.5"]) == 0
    assert drawn.prompts == (PromptConfig(prompt="x", negative="a dog"),)
    assert main(["sample", folder]) == 0
    assert drawn.prompts == (PromptConfig(prompt="a cat"),) and drawn.config.sampling.cfg == 1.0


@pytest.mark.parametrize("more", [[], ["--cfg", "1"], ["--prompt", "x"]])
def test_a_negative_prompt_that_would_do_nothing_is_refused(
    more: list[str], runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Drawn(monkeypatch)
    assert main(["sample", str(runs_dir / "cat"), "--negative", "a dog", *more]) == 2
    assert "Add --cfg 3" in capsys.readouterr().err


def test_a_negative_prompt_works_with_the_configured_cfg(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(monkeypatch)
    path = runs_dir / "cat/config.toml"
    path.write_text(CONFIG.replace("[[sampling", "[sampling]\ncfg = 2.0\n[[sampling"))
    assert main(["sample", str(path), "--negative", "a dog"]) == 0
    assert drawn.prompts[0].negative == "a dog" and drawn.config.sampling.cfg == 2.0


@pytest.mark.parametrize(
    "words", [["--cfg", "-1"], ["--seed", "-1"], ["--steps", "0"], ["--guidance", "nan"], ["--size", "8x8"]]
)
def test_impossible_numbers_are_bad_usage(words: list[str], runs_dir: Path) -> None:
    assert main(["sample", str(runs_dir / "cat"), *words]) == 2


def test_the_prompts_of_the_configuration_are_the_default(runs_dir: Path) -> None:
    config = load_config(runs_dir / "cat/config.toml")
    assert config.sampling.prompts[0].prompt == "a cat"
    assert "sample" in (sample.__doc__ or "")


def test_a_nearly_full_disk_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tui.commands import runs as command
    from tui.run_list import RunSummary

    found = [RunSummary(name, str(tmp_path / name), "stopped", 1, 2, 3, 4, None, 5.0, 6.0, ()) for name in "ab"]
    monkeypatch.setattr(command, "free_bytes", lambda path: 3 * 10**8)
    assert command.full_disks(found) == [f"The disk of {tmp_path} is nearly full: 300.0 MB are free."]
    for free in (-1, 10**11):
        monkeypatch.setattr(command, "free_bytes", lambda path, free=free: free)
        assert command.full_disks(found) == []
