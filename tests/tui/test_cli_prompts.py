"""`kiln prompts` and `kiln sample --epochs`: prompts written into a file, and a run's epochs drawn into its grid."""

from __future__ import annotations

from pathlib import Path

import pytest
from pocket import finish, pictures, pocket_config

from engine.config import PROMPT_KINDS
from engine.config_file import load_config
from engine.errors import RunError
from engine.events import CheckpointSaved, Entry, RunStarted, replay
from engine.files import RunFolder
from engine.locks import lock_folder
from engine.run import Run
from tui.__main__ import main
from tui.commands.sample import epochs_of
from tui.epochs import grid_of
from tui.run_list import read_view
from tui.view import RunView, fold

TOML = """\
# my cat
name = "cat"
[model]
transformer = "flux.safetensors"
autoencoder = "ae.safetensors"
clip_l = "clip.safetensors"
t5 = "t5.safetensors"

[dataset.captions]
trigger_word = "zorple"  # the word

[[dataset.folders]]
path = "pictures"

[sampling]
steps = 4  # quick
{prompts}
[saving]
every_epochs = 2
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a folder of five pictures, and no prompts."""
    pictures(tmp_path / "pictures", 5)
    path = tmp_path / "cat.toml"
    path.write_text(TOML.replace("{prompts}", ""))
    return path


def test_prompts_are_shown_and_nothing_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = config.read_text()
    assert main(["prompts", str(config)]) == 0
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines()[:6]] == [
        "caption", "caption", "scene", "scene", "off-domain", "no trigger",
    ]  # fmt: skip
    assert "a zorple" in out and "Nothing is written" in out
    assert config.read_text() == before


@pytest.mark.parametrize("prompts", ["", "prompts = []\n"])
def test_prompts_are_written_and_comments_stay(config: Path, prompts: str) -> None:
    config.write_text(TOML.replace("{prompts}", prompts))
    assert main(["prompts", str(config), "--write"]) == 0
    text = config.read_text()
    assert all(words in text for words in ("# my cat", "# the word", "# quick", 'kind = "off-domain"'))
    written = load_config(config)
    assert {one.kind for one in written.sampling.prompts} == set(PROMPT_KINDS)
    assert [one.seed for one in written.sampling.prompts] == [1, 2, 3, 4, 5, 6]
    assert (written.sampling.steps, written.saving.every_epochs) == (4, 2)


def test_prompts_of_ones_own_are_replaced_only_when_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = '[[sampling.prompts]]\nprompt = "mine"\nseed = 9\n'
    config.write_text(TOML.replace("{prompts}", mine))
    before = config.read_text()
    assert main(["prompts", str(config), "--write"]) == 2
    assert "--replace" in capsys.readouterr().err and config.read_text() == before
    assert main(["prompts", str(config), "--replace"]) == 0
    assert "mine" not in config.read_text() and len(load_config(config).sampling.prompts) == 6
    assert main(["prompts", str(config), "--replace"]) == 0
    assert len(load_config(config).sampling.prompts) == 6


def test_without_captions_and_trigger_there_is_nothing_to_write(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = config.read_text().replace('trigger_word = "zorple"', "").replace("[sampling]", "[sampling]\n")
    config.write_text(text)
    for caption in (config.parent / "pictures").glob("*.txt"):
        caption.write_text(" ")
    assert main(["prompts", str(config)]) == 2
    assert capsys.readouterr().err


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a LoRA of every epoch and samples of the last one."""
    home = tmp_path_factory.mktemp("over")
    prompts = [{"prompt": "a zorple at the left", "seed": 3}]
    run = finish(Run(pocket_config(home, sampling={"prompts": prompts, "every_epochs": 3})))
    assert run.exit_reason == "finished" and run.folder is not None
    return run.folder.root


def test_epochs_asked_for_stand_in_the_grid(over: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(over), "--epochs", "0,2-3", "--strengths", "0.6,1"]) == 0
    out = capsys.readouterr().out.split()
    assert [Path(line).name for line in out] == [
        "step000006-00-s0.6.png", "step000006-00.png", "step000009-00-s0.6.png",
    ]  # fmt: skip
    view = read_view(over)
    grid = grid_of(view.samples)
    assert set(grid) == {(0, 0, 1.0), (2, 0, 0.6), (2, 0, 1.0), (3, 0, 0.6), (3, 0, 1.0)}
    assert view.state == "finished" and not view.live
    assert main(["sample", str(over), "--epochs", "2", "--strengths", "0.6"]) == 0
    assert "drawn before" in capsys.readouterr().err


def test_while_it_is_held_pictures_go_aside(over: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = len(list(replay(RunFolder(over).events)))
    with lock_folder(RunFolder(over)):
        assert main(["sample", str(over), "--epochs", "1", "--strengths", "0.4"]) == 0
    out = capsys.readouterr()
    [picture] = out.out.split()
    assert Path(picture).parent == over / "samples" / "by-hand" and "holds the run" in out.err
    assert len(list(replay(RunFolder(over).events))) == told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epochs", "7"], "There is no LoRA of that epoch"),
        (["--epochs", "2", "--prompt", "x"], "--epochs draws what the run draws"),
        (["--epochs", "2", "--lora", "none"], "--epochs draws what the run draws"),
        (["--epochs", "9-2"], "give epochs like"),
        (["--epochs", "2", "--strengths", "3"], "give a number from 0 to 2"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    over: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(over), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_configuration_file_has_no_epochs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(config), "--epochs", "all"]) == 2
    assert "--epochs draws what the run draws" in capsys.readouterr().err


def test_the_last_file_of_an_epoch_that_is_there_counts(tmp_path: Path) -> None:
    view = RunView()
    names = ("cat-s000005.safetensors", "cat-e0002.safetensors", "cat-e0004.safetensors")
    events = [RunStarted("cat", str(tmp_path), "flux", "dev", 4, 12, 5)]
    events += [
        CheckpointSaved(f"/old/{name}", 3 * at, at, "epoch", 1) for name, at in zip(names, (2, 2, 4), strict=True)
    ]
    for seq, event in enumerate(events, 1):
        fold(view, Entry(seq, 0.0, event))
    for name in names[:2]:
        (tmp_path / name).touch()
    assert epochs_of(view, tmp_path, ()) == {2: (6, tmp_path / names[1])}
    assert epochs_of(view, tmp_path, (0, 2)) == {0: (0, None), 2: (6, tmp_path / names[1])}
    with pytest.raises(RunError, match="there are files of: 2"):
        epochs_of(view, tmp_path, (4,))
