"""Taking an epoch along: never over a file, into folders that are there, with words that fit the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_epochs import lora_file, make_run

from engine.errors import DiskError, ModelFileError, RunError
from tui.__main__ import main
from tui.epochs import advice_of, epoch_rows
from tui.judged import Judged, read_judged
from tui.run_list import read_view
from tui.taking import (
    NameTaken,
    checked_name,
    epoch_to_take,
    file_of,
    found_targets,
    layout_of,
    take,
    use_of,
    usual_name,
)


def test_the_epoch_meant_is_the_chosen_the_advised_or_the_last(tmp_path: Path) -> None:
    root = make_run(tmp_path)
    view = read_view(root)
    advice = advice_of(view)
    rows = epoch_rows(view, root, Judged(), advice)
    assert advice.best and epoch_to_take(rows, Judged(), advice) in (advice.best, advice.best - 1, advice.best + 1)
    assert epoch_to_take(rows, Judged(chosen=10), advice) == 10
    assert epoch_to_take(rows, Judged(), advice_of(read_view(tmp_path / "nothing"))) == 12
    (root / "cat-e0010.safetensors").unlink()
    assert epoch_to_take(rows, Judged(chosen=10), advice) != 10
    with pytest.raises(RunError, match="Epoch 10 has no LoRA file"):
        file_of(rows, 10)
    with pytest.raises(RunError, match="no LoRA file"):
        epoch_to_take([], Judged(), advice)


def test_of_two_layouts_the_one_that_every_program_reads_is_taken(tmp_path: Path) -> None:
    root = make_run(tmp_path)
    rows = epoch_rows(read_view(root), root, Judged(), advice_of(read_view(root)))
    kohya, other = root / "cat-e0012.safetensors", root / "cat-e0012.diffusers.safetensors"
    lora_file(other)
    row = next(row for row in rows if row.epoch == 12)
    both = [type(row)(row.epoch, row.step, (other, kohya), row.verdict, row.measured, row.opinion)]
    assert file_of(both, 12) == kohya
    assert usual_name("cat", 12, kohya) == "cat-e0012.safetensors"
    assert usual_name("cat", 12, other) == "cat-e0012.diffusers.safetensors"


def test_a_copy_never_lies_over_a_file_unless_asked_to(tmp_path: Path) -> None:
    source, folder = lora_file(tmp_path / "cat.safetensors"), tmp_path / "loras"
    folder.mkdir()
    copy = take(source, folder, "mine")
    assert copy == folder / "mine.safetensors" and copy.read_bytes() == source.read_bytes()
    copy.write_bytes(b"another's")
    with pytest.raises(NameTaken):
        take(source, folder, "mine.safetensors")
    assert copy.read_bytes() == b"another's" and len(list(folder.iterdir())) == 1
    (folder / "link.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NameTaken):
        take(source, folder, "link")
    assert take(source, folder, "mine", replace=True).read_bytes() == source.read_bytes()
    assert take(source, tmp_path, "cat") == source, "where it lies already"


def test_a_name_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lora_file(tmp_path / "cat.safetensors")
    target = tmp_path / "mine.safetensors"

    def copy(source: Path, temp: Path) -> None:
        temp.write_bytes(source.read_bytes())
        target.write_bytes(b"another's")

    monkeypatch.setattr("tui.taking.shutil.copyfile", copy)
    with pytest.raises(NameTaken):
        take(source, tmp_path, "mine")
    assert target.read_bytes() == b"another's"


def test_what_cannot_be_taken_is_said(tmp_path: Path) -> None:
    source = lora_file(tmp_path / "cat.safetensors")
    with pytest.raises(DiskError, match="no such folder"):
        take(source, tmp_path / "nowhere", "x")
    assert not (tmp_path / "nowhere").exists()
    for name in ("", "../x", "a/b", ".hidden", "a\x1b[2J", "x" * 300):
        with pytest.raises(RunError):
            checked_name(name)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing of it")
    with pytest.raises(ModelFileError):
        take(broken, tmp_path, "x")
    assert not (tmp_path / "x.safetensors").exists()


def test_folders_of_programs_are_found_once(tmp_path: Path) -> None:
    comfy, forge = tmp_path / "ComfyUI/models/loras", tmp_path / "ai/stable-diffusion-webui-forge/models/Lora"
    other = tmp_path / "disk/ComfyUI/models"
    for folder in (comfy, forge, other / "loras"):
        folder.mkdir(parents=True)
    found = found_targets(tmp_path, [other / "diffusion_models/flux1-dev.safetensors"])
    assert [(target.program, target.folder) for target in found] == [
        ("ComfyUI", other / "loras"), ("ComfyUI", comfy), ("Forge", forge),
    ]  # fmt: skip
    assert found_targets(tmp_path / "nobody") == []


def test_the_words_fit_layout_model_and_trigger(tmp_path: Path) -> None:
    kohya = lora_file(tmp_path / "cat.safetensors")
    other = lora_file(tmp_path / "cat.diffusers.safetensors", ["transformer.x.lora_A.weight"])
    assert (layout_of(kohya), layout_of(other)) == ("kohya", "diffusers")
    told = use_of(kohya, "zorple", "dev")
    assert "LoraLoaderModelOnly" in told.text and "cat.safetensors" in told.text and "0.5 to 0.7" in told.text
    assert told.snippet("Forge").startswith("<lora:cat:0.8> zorple, ")
    assert "FLUX.1-dev" in told.snippet("diffusers")
    compile(told.snippet("diffusers"), "usage", "exec")
    schnell = use_of(other, "", "schnell")
    assert "FLUX.1-schnell" in schnell.snippet("diffusers") and "diffusers layout" in schnell.text
    assert max(map(len, told.text.split("\n"))) < 110
    assert "\x1b" not in use_of(kohya, "zor\x1b[2Jple").text
    assert use_of(kohya, demo=True).text.startswith("This LoRA fits the demonstration's tiny model alone")


def test_the_command_line_takes_an_epoch_and_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_run(tmp_path)
    loras = tmp_path / "loras"
    loras.mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["use", "cat", "--epoch", "8", "--to", "loras"]) == 0
    assert (loras / "cat-e0008.safetensors").read_bytes() == (root / "cat-e0008.safetensors").read_bytes()
    assert "Copied epoch 8" in capsys.readouterr().out
    assert read_judged(root).chosen == 8
    assert main(["use", "runs/cat"]) == 0
    assert "Epoch 8: runs/cat/cat-e0008.safetensors" in capsys.readouterr().out
    assert main(["use", "cat", "--to", "loras"]) == 2
    assert "A file of that name is there" in capsys.readouterr().err
    assert main(["use", "cat", "--to", "loras", "--name", "best"]) == 0
    assert main(["use", "cat", "--to", "loras", "--replace"]) == 0
    assert sorted(path.name for path in loras.iterdir()) == ["best.safetensors", "cat-e0008.safetensors"]
    for wrong in (["--epoch", "7"], ["--name", "x"]):
        capsys.readouterr()
        assert main(["use", "cat", *wrong]) == 2
        assert capsys.readouterr().err
