"""The setup form on the screen, by keys: from an empty folder to a finished LoRA, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pocket import FILES, pictures, pocket_config
from textual.pilot import Pilot
from watching import text_of, until

from engine.config_file import load_config
from engine.dataset.scan import Scan
from engine.run import Run
from tui.app import KilnApp
from tui.machine import NO_GPU
from tui.screens.dialogs import ChoiceDialog, ErrorDialog
from tui.screens.pick import PickDialog
from tui.screens.setup import SetupScreen
from tui.setup.fields import MASKS, SLOTS
from tui.widgets.fields import Choice, FieldRow
from tui.workplace import Workplace

SIZES = [(160, 45), (80, 24)]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty work folder; no model files are found on this machine."""
    monkeypatch.setattr("tui.setup.models.known_roots", list)
    folder = tmp_path / "mycat"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


async def opened(pilot: Pilot[Any], *keys: str) -> SetupScreen:
    """Press ``keys`` and wait for the form, with everything looked at."""
    await pilot.pause()
    await pilot.press(*keys)
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, SetupScreen))
    screen = app.screen
    assert isinstance(screen, SetupScreen)
    await until(pilot, lambda: screen.finds is not None and not screen.busy)
    return screen


def note(screen: SetupScreen, name: str) -> str:
    """What is said under a field."""
    return screen.query_one(f"#row-{name}", FieldRow).told


async def press_and_look(pilot: Pilot[Any], screen: SetupScreen, *keys: str) -> None:
    """Press ``keys`` and wait until the form has looked at what they changed."""
    await pilot.press(*keys)
    await pilot.pause()
    await until(pilot, lambda: not screen.busy)


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
async def test_from_an_empty_folder_to_a_finished_lora_by_keys(work: Path, size: tuple[int, int]) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, "ctrl+n")
        assert "F6" in note(screen, "folder")
        await pilot.press("f6")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.screen is screen and isinstance(screen.scan, Scan) and not screen.busy)
        await until(pilot, lambda: not screen.to_mend)
        await until(pilot, lambda: note(screen, "folder") == "16 pictures, 16 captions")
        assert "= 192 steps" in text_of(app)
        screen.control("epochs").focus()
        await press_and_look(pilot, screen, "end", "backspace", "backspace", "1")
        assert "= 8 steps" in text_of(app)
        await pilot.press("f5")
        await until(pilot, lambda: app.workplace.run is not None and app.screen is not screen)
        assert app.workplace.session.pane == "training"
        await until(pilot, lambda: app.workplace.view.state == "finished")
        assert not isinstance(app.screen, SetupScreen)
    config = load_config(work / "mycat.toml")
    assert (config.training.epochs, config.dataset.captions.trigger_word) == (1, "zorple")
    assert app.workplace.config_path == work / "mycat.toml"
    assert (work / "model" / "mycat" / "mycat.safetensors").is_file()
    assert (work / "log").is_dir()


async def test_a_number_that_is_wrong_is_told_as_it_is_typed_and_keeps_the_run_from_starting(work: Path) -> None:
    pictures(work / "image", 3)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        screen.control("rank").focus()
        await press_and_look(pilot, screen, "end", "x")
        assert "valid integer" in note(screen, "rank")
        assert "1 to mend" in text_of(app)
        screen.control("name").focus()
        await pilot.press("f5")
        await until(pilot, lambda: app.focused is screen.control("rank"))
        assert app.workplace.run is None
        assert not list(work.glob("*.toml"))
        await press_and_look(pilot, screen, "backspace")
        assert note(screen, "rank") == ""
        assert "ready" in text_of(app)


async def test_masks_have_rows_once_there_are_to_be_some(work: Path) -> None:
    pictures(work / "image", 3)
    (work / "image" / "masks").mkdir()
    Image.new("L", (64, 64)).save(work / "image" / "masks" / "00.png")
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")

        def rows() -> list[bool]:
            return [screen.query_one(f"#row-{name}").display for name in MASKS]

        await until(pilot, lambda: rows() == [True, False, False])
        screen.control("masks").focus()
        await press_and_look(pilot, screen, "right")
        await until(pilot, lambda: rows() == [True, True, True])
        await until(pilot, lambda: note(screen, "mask_folder") == "1 of 3 pictures have a mask")
        screen.control("mask_folder").focus()
        await press_and_look(pilot, screen, "end", "2")
        assert "0 of 3 pictures have a mask" in note(screen, "mask_folder")
        screen.control("masks").focus()
        await press_and_look(pilot, screen, "right")
        assert rows() == [True, False, True] and note(screen, "mask_folder") == ""


async def test_what_is_typed_comes_back_on_another_screen(work: Path) -> None:
    pictures(work / "image", 2)
    place = Workplace(work)
    app = KilnApp(place)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        screen.control("trigger").focus()
        await press_and_look(pilot, screen, *"cat")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)
    again = KilnApp(Workplace(work, session=place.session))
    async with again.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        assert screen.form.values["trigger"] == "cat"
        assert 'trigger_word = "cat"' in screen.checked.text
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not screen.busy)
        assert screen.form.values["trigger"] == ""


async def test_presets_fill_in_the_numbers(work: Path) -> None:
    app = KilnApp(Workplace(work))
    app.workplace.machine = NO_GPU
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        preset = screen.control("preset")
        assert isinstance(preset, Choice)
        preset.focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        await pilot.press("home", "down", "enter")
        await until(pilot, lambda: preset.value == "style")
        assert screen.form.values["rank"] == "32"
        assert "pocket" in note(screen, "preset")
        assert screen.form.values["optimizer"] == "adamw8bit" and "adamw is quicker" in note(screen, "optimizer")
        await press_and_look(pilot, screen, "left")
        assert screen.form.values["rank"] == "16"


async def test_own_files_are_found_named_and_missed(work: Path) -> None:
    models = work / "models"
    models.mkdir()
    for name in ("flux", "ae", "clip"):
        (models / f"{name}.safetensors").write_bytes((FILES / f"{name}-pocket.safetensors").read_bytes())
    (models / "notes.safetensors").write_text("no model")
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        await press_and_look(pilot, screen, "right")
        assert screen.form.values["base"] == "files"
        assert note(screen, "transformer").startswith("FLUX.1")
        assert note(screen, "t5").startswith("Missing: t5xxl")
        assert "t5" in screen.to_mend
        screen.control("transformer").focus()
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        await until(pilot, lambda: "flux.safetensors" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        screen.control("t5").focus()
        await press_and_look(pilot, screen, *"models/ae.safetensors")
        assert "autoencoder" in note(screen, "t5")


async def test_when_all_files_are_there_the_form_begins_with_them(work: Path) -> None:
    (work / "models").mkdir()
    for file in FILES.glob("*.safetensors"):
        (work / "models" / file.name).write_bytes(file.read_bytes())
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        assert screen.form.values["base"] == "files"
        assert screen.form.values["preset"] == "character"
        await until(pilot, lambda: len(screen.verdicts) == len(SLOTS))
        assert not [slot for slot in SLOTS if slot in screen.to_mend]


async def test_folders_that_are_laid_out_already_are_begun_with(work: Path) -> None:
    (work / "models").mkdir()
    for file in FILES.glob("*.safetensors"):
        (work / "models" / file.name).write_bytes(file.read_bytes())
    pictures(work / "image", 2)
    (work / "model").mkdir()
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        values = screen.form.values
        assert (values["folder"], values["runs_dir"], values["base"]) == ("image", "model", "files")


async def test_another_configuration_of_the_name_is_not_written_over_unasked(work: Path) -> None:
    pictures(work / "image", 2)
    (work / "mycat.toml").write_text("# mine\n")
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("n")
        await until(pilot, lambda: (work / "mycat-2.toml").exists() and app.screen is not screen)
        assert app.workplace.config is not None and app.workplace.config.name == "mycat-2"
    assert (work / "mycat.toml").read_text() == "# mine\n"


async def test_a_second_run_is_refused_while_one_is_live(work: Path) -> None:
    pictures(work / "image", 2)
    run = Run(pocket_config(work.parent, training={"epochs": 100_000}))
    app = KilnApp(Workplace.around(run, work))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.workplace.view.step > 0)
        screen = await opened(pilot, "ctrl+n")
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "live" in text_of(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
    from engine.commands import StopNow

    run.submit(StopNow())
    assert run.join(60)


async def test_the_configuration_has_a_page_of_its_own_on_a_small_screen(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        assert "[model]" not in text_of(app)
        await pilot.press("f2")
        await pilot.pause()
        assert "[model]" in text_of(app) and "kiln train mycat.toml" in text_of(app)
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen is screen and "[model]" not in text_of(app)
        await pilot.press("up", "down", "tab", "shift+tab")
        await pilot.pause()
        assert app.focused is screen.control("base")
        await pilot.resize_terminal(160, 45)
        await pilot.pause()
        assert "[model]" in text_of(app) and "Dataset folder" in text_of(app)


async def test_advice_is_marked_in_the_form(work: Path) -> None:
    config = pocket_config(work)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await app.push_screen(SetupScreen(app.workplace, config, {"lora.rank": 2, "dataset.flip": True}))
        screen = await opened(pilot)
        assert note(screen, "rank") == "changed as advised"
        assert "dataset.flip = true" in note(screen, "preset")
        assert screen.checked.config is not None and screen.checked.config.dataset.flip


async def test_a_path_is_completed_as_it_is_typed(work: Path) -> None:
    (work / "pictures-of-cats").mkdir()
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        screen.control("folder").focus()
        await pilot.press("end", *["backspace"] * len(screen.form.values["folder"]), *"pict")
        entry = screen.control("folder")
        await until(pilot, lambda: bool(getattr(entry, "_suggestion", "")))
        await press_and_look(pilot, screen, "right")
        assert screen.form.values["folder"] == "pictures-of-cats"
        assert "No pictures" in note(screen, "folder")


async def test_what_is_found_while_the_form_is_taken_down_is_dropped(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields go before the screen does: an answer that comes in between has nobody to tell."""
    going = threading.Event()

    def late(folders: object) -> dict[str, tuple[()]]:
        assert going.wait(30)
        return {slot: () for slot in SLOTS}

    async def unmount(row: FieldRow) -> None:
        going.set()
        await asyncio.sleep(0.05)

    monkeypatch.setattr("tui.screens.setup_looks.search", late)
    monkeypatch.setattr(FieldRow, "on_unmount", unmount, raising=False)
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(app.screen, SetupScreen) and bool(app.screen.query("#row-name")))
    assert app.crash == ""


async def test_prompts_are_written_from_the_captions(work: Path) -> None:
    app = KilnApp(Workplace(work))
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await opened(pilot, "ctrl+n")
        before = screen.form.values["prompts"]
        await pilot.press("f9")
        await pilot.pause()
        assert screen.form.values["prompts"] == before  # no pictures yet
        pictures(work / "image", 5)
        screen.form.values |= {"folder": "image", "trigger": "zorple"}
        screen.refill()
        await until(pilot, lambda: isinstance(screen.scan, Scan) and not screen.busy)
        await pilot.press("f9")
        await until(pilot, lambda: screen.form.values["prompts"] != before)
        assert screen.checked.config is not None
        kinds = [one.kind for one in screen.checked.config.sampling.prompts]
        assert kinds == ["caption", "caption", "scene", "scene", "off-domain", "no trigger"]
        assert screen.control("prompts").text == screen.form.values["prompts"]
