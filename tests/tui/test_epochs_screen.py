"""The epochs screen by its keys: moving, judging, comparing, taking along; and its words where there is nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_epochs import PER_EPOCH, PROMPTS, lora_file, make_run, measured
from safetensors.numpy import load_file, save_file
from textual.pilot import Pilot
from textual.widgets import Input
from tiny_pictures import add
from watching import text_of, until

from engine.commands import Command, Keep
from engine.errors import DiskError
from engine.events import CheckpointSaved, EpochDone, EventLog, SampleSaved
from engine.files import RunFolder
from tui.app import KilnApp
from tui.judged import Judged, read_judged, write_judged
from tui.screens.blend import BlendDialog
from tui.screens.blind import BlindScreen
from tui.screens.dialogs import ErrorDialog
from tui.screens.epoch_pair import PairScreen
from tui.screens.epochs import EpochsScreen
from tui.screens.runs import RunsScreen
from tui.screens.take import TakeDialog, UsageDialog
from tui.screens.verdict import VerdictDialog
from tui.settings import Settings
from tui.terminal.traits import Traits
from tui.watched import WatchedRun
from tui.widgets.epoch_grid import EpochGrid
from tui.widgets.epoch_plot import EpochPlot
from tui.widgets.epoch_table import EpochTable
from tui.widgets.preview import Preview
from tui.workplace import Workplace

SIZES = pytest.mark.parametrize("size", [(160, 45), (80, 24)], ids=["160x45", "80x24"])


@dataclass
class Opened:
    """The screen, and what looks at it."""

    app: KilnApp
    pilot: Pilot[Any]
    screen: EpochsScreen

    @property
    def text(self) -> str:
        """What can be read."""
        return text_of(self.app)

    @property
    def words(self) -> str:
        """The same without line breaks."""
        return " ".join(self.text.split())

    async def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait."""
        await until(self.pilot, condition)

    def kept(self) -> Judged:
        """The opinions on the disk."""
        return read_judged(self.screen.folder)


@asynccontextmanager
async def opened(
    root: Path, size: tuple[int, int] = (160, 45), utf8: bool = True, settings: Settings | None = None
) -> AsyncIterator[Opened]:
    """The screen on the run in ``root``, all read and drawn."""
    place = Workplace(root.parents[1], settings)
    place.session.offered = str(root)  # the workbench would ask about a run that broke off
    app = KilnApp(place, Traits(utf8=utf8))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        screen = EpochsScreen(app.workplace, root)
        app.push_screen(screen)
        await until(pilot, lambda: app.screen is screen and screen.ready)
        await until(pilot, lambda: not screen.query_one(EpochGrid)._pending)
        yield Opened(app, pilot, screen)


@SIZES
async def test_curves_table_and_pictures_share_one_cursor(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(make_run(tmp_path), size) as on:
        screen, best = on.screen, on.screen.shown.advice.best
        assert screen.shown.epoch == best and screen.shown.advice.text.partition(". ")[0] in on.words
        for keys, epoch in ((("right",), best + 1), (("j", "l"), best + 3), (("left", "k", "h"), best), (("g",), 0)):
            await on.press(*keys)
            parts = (screen.query_one(EpochPlot), screen.query_one(EpochTable), screen.query_one(EpochGrid))
            assert screen.shown.epoch == epoch
            assert all(part.shown.epoch == epoch for part in parts)
        await on.press("pagedown")
        assert screen.shown.epoch == 10
        await on.press("G")
        assert screen.shown.epoch == 12 and f"epoch 12, {screen.shown.advice.of_epoch(12)}" in on.text
        await on.press("pageup", "a")
        assert screen.shown.epoch == best


@SIZES
async def test_parts_are_gone_to_one_by_one(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(make_run(tmp_path), size) as on:
        assert "held-out" in on.text
        await on.press("tab")
        await on.until(lambda: on.app.focused is on.screen.query_one(EpochTable))
        assert "verdict" in on.text and "cat-e0006" in on.text
        at = on.screen.shown.at
        await on.press("down", "down", "up")
        assert on.screen.shown.at == at + 1 and on.screen.shown.prompt == 0, "in the table down is the next epoch"
        await on.press("tab")
        await on.until(lambda: on.app.focused is on.screen.query_one(EpochGrid))
        await on.press("down")
        assert on.screen.shown.prompt == 1 and on.screen.shown.at == at + 1
        assert "> scene" in on.text.replace(">scene", "> scene") and "a zorple reading a newspaper" in on.text
        await on.press("z")
        assert "verdict" not in on.text and on.screen.has_class("-zoom")
        await on.press("escape")
        assert not on.screen.has_class("-zoom") and on.app.screen is on.screen
        await on.press("shift+tab", "shift+tab", "shift+tab")
        await on.until(lambda: on.app.focused is on.screen.query_one(EpochGrid))
        await on.press("escape")
        await on.until(lambda: on.app.screen is not on.screen)


async def test_one_key_leads_through_the_curves(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path)) as on:
        for title, legend in (
            ("Loss by noise level", "low noise"), ("Drift on ordinary prompts", "drift"),
            ("Size of the update", "single"), ("What the pictures score", "No picture was scored"),
            ("Loss: lower is better", "held-out"),
        ):  # fmt: skip
            await on.press("c")
            assert title in on.text and legend in on.text
        line = next(line for line in on.text.splitlines() if "[" in line and "=" in line and "^" in line)
        assert "]" in line, "the advised range is a bracket on the axis"


async def test_stars_notes_and_verdicts_are_kept_at_once(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path)) as on:
        epoch = on.screen.shown.epoch
        await on.press("4")
        await on.until(lambda: on.kept().of(epoch).stars == 4)
        await on.press("plus", "plus", "minus", "minus", "minus")
        await on.until(lambda: on.kept().of(epoch).stars == 2)
        assert "2 of 5 stars" in on.text and " **" in on.text
        await on.press("n", *"best jeq")
        assert on.screen.shown.epoch == epoch, "letters are text while a note is typed"
        await on.press("enter")
        await on.until(lambda: on.kept().of(epoch).note == "best jeq")
        assert '"best jeq"' in on.text
        await on.press("n", "x", "escape")
        assert on.app.screen is on.screen and not on.screen.has_class("-noting")
        assert on.screen.judged is not None and on.screen.judged.of(epoch).note == "best jeq"
        await on.press("v")
        await on.until(lambda: isinstance(on.app.screen, VerdictDialog))
        await on.press("y", "p", "n", "up", "delete", "down", "enter")
        await on.until(lambda: on.app.screen is on.screen)
        await on.until(lambda: on.kept().of(epoch).recognisable == "yes")
        opinion = on.kept().of(epoch)
        assert (opinion.obeys, opinion.clean) == ("", "no")
        await on.press("v", "n", "escape", "0")
        await on.until(lambda: on.kept().of(epoch).stars == 0)
        assert on.kept().of(epoch).recognisable == "yes", "esc keeps what was answered before"


async def test_opinions_that_cannot_be_kept_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, judged: Judged) -> None:
        raise DiskError("The disk is full", "no room", "Make some.")

    monkeypatch.setattr("tui.screens.epochs.write_judged", full)
    async with opened(make_run(tmp_path)) as on:
        await on.press("5")
        await on.until(lambda: isinstance(on.app.screen, ErrorDialog))
        assert "not kept: The disk is full" in on.text


async def test_opinions_that_cannot_be_read_are_not_overwritten(tmp_path: Path) -> None:
    root = make_run(tmp_path)
    write_judged(root, Judged(chosen=4).with_opinion(4, stars=5))
    kept = (root / "judged.json").read_bytes()
    failing = pytest.MonkeyPatch()
    failing.setattr("tui.screens.epochs_view.read_judged", _denied)
    app = KilnApp(Workplace(tmp_path), Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        app.push_screen(screen := EpochsScreen(app.workplace, root))
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog) and screen.ready)
        await pilot.press("escape", "3", "u", "escape")
        await pilot.pause()
    failing.undo()
    assert (root / "judged.json").read_bytes() == kept


def _denied(folder: Path) -> Judged:
    raise PermissionError(13, "Permission denied")


async def test_two_epochs_flip_in_one_place_or_stand_side_by_side(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path)) as on:
        await on.press("g", "right", "right", "space", "G", "enter")
        await on.until(lambda: isinstance(on.app.screen, PairScreen))
        assert "A epoch 2 and B epoch 12" in on.text and "a zorple on a meadow" in on.text
        assert "A  epoch 2" in on.text and "B  epoch 12" in on.text
        await on.press("space")
        assert "B  epoch 12" in on.text and "A  epoch 2," not in on.text
        await on.press("f")
        assert "A  epoch 2" in on.text and "B  epoch 12," not in on.text
        await on.press("enter", "left", "down")
        assert "B epoch 10" in on.text and "a zorple reading a newspaper" in on.text and "A  epoch 2" in on.text
        await on.press("x", "right", "up", "s")
        assert "A epoch 10 and B epoch 4" in on.text
        await on.press("escape")
        await on.until(lambda: on.app.screen is on.screen)
        assert on.screen.shown.epoch == 4, "the cursor is on the epoch looked at"


@SIZES
async def test_one_goes_through_the_datasets_pictures_beside_the_samples(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    root = make_run(tmp_path, every=1)
    for number in range(3, 20):
        add(tmp_path / "data", f"{number}.png", f"a zorple number {number}")
    async with opened(root, size) as on:
        grid = on.screen.query_one(EpochGrid)
        on.screen.go_to("pictures")
        await on.until(lambda: grid.size.width and not grid._pending and f"/{20}" in on.text)
        step = grid.own_step
        assert step == grid._plan.trained == (3 if size[0] == 160 else 1)
        assert f"training 1-{step}/20" in on.text if step > 1 else "training 1/20" in on.text

        def own() -> list[str]:
            return [Path(cell[0]).name for cell in grid._cells()[0][:step] if cell is not None]

        first = own()
        assert first[0] == "0.png" and len(first) == step, "the nearest to the prompt"
        seen = list(first)
        for _ in range((20 - 1) // step):
            await on.press("t")
            seen += own()
        assert len(seen) == 20 and len(set(seen)) == 20
        await on.press("t")
        assert own() == first, "after the last the first again"
        await on.press("T")
        assert own()[-1] == seen[-1]
        await on.until(lambda: not grid._pending)
        assert all(cell in grid._kept for row in grid._cells() for cell in row if cell is not None)


async def test_all_of_a_small_dataset_is_in_sight_where_there_are_few_epochs(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path)) as on:
        assert on.screen.query_one(EpochGrid)._plan.trained == 3 and "training 1-3/3" in on.text
        await on.press("t")
        assert "These are all of the dataset's pictures" in on.text


@SIZES
async def test_a_training_picture_stands_beside_an_epochs(tmp_path: Path, size: tuple[int, int]) -> None:
    async with opened(make_run(tmp_path), size) as on:
        await on.press("G", "enter")
        await on.until(lambda: isinstance(on.app.screen, PairScreen))
        await on.press("t")
        assert "A a training picture and B epoch 12" in on.text
        assert "1 of 3 training pictures, 0.png: a" in on.text
        preview = on.app.screen.query_one("#picture-0", Preview)
        await on.until(lambda: preview._drawn is not None and preview._picture[0] == tmp_path / "data" / "0.png")
        await on.press("f")
        assert "0.png" in on.text and "B  epoch 12" not in on.text
        await on.press("f")
        assert "B  epoch 12" in on.text and "0.png" not in on.text
        await on.press("t")
        assert "2 of 3 training pictures" in on.text and "B  epoch 12" not in on.text
        await on.press("enter", "t", "t")
        assert "A  epoch" in on.text and "training picture" not in on.text, "after the last the epoch again"
        await on.press("T", "left")
        assert "3 of 3 training pictures" in on.text and "B  epoch 10" in on.text
        await on.press("x")
        assert "A epoch 10 and B epoch" in on.text and "training picture" not in on.text
        await on.press("escape")
        await on.until(lambda: on.app.screen is on.screen)


async def test_a_training_picture_is_opened_by_the_mouse_and_with_one_epoch_alone(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path, epochs=1, every=2)) as on:
        grid = on.screen.query_one(EpochGrid)
        column, row = grid._plan.columns + 3, grid._plan.rows + 4
        await on.pilot.click(grid, offset=(column, row))
        await on.until(lambda: isinstance(on.app.screen, PairScreen))
        assert "2 of 3 training pictures" in on.words and "a zorple reading a newspaper" in on.text
        await on.press("escape", "enter")
        await on.until(lambda: isinstance(on.app.screen, PairScreen))
        assert "1 of 3 training pictures" in on.words and "B epoch 0" in on.text


async def test_a_blind_round_names_nothing_until_it_is_over(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path)) as on:
        await on.press("b")
        await on.until(lambda: isinstance(on.app.screen, BlindScreen))
        blind = on.app.screen
        assert isinstance(blind, BlindScreen) and blind.pairs
        pairs = list(blind.pairs)
        for number, key in zip(range(len(pairs)), ("1", "2", "equals_sign", "space", *"1" * 20), strict=False):
            assert f"Pair {number + 1} of" in on.text and "epoch" not in on.text
            await on.press(key)
        assert "The round is over" in on.text and "What you saw" in on.text
        winner, loser = pairs[0].left.epoch, pairs[0].right.epoch
        assert f"epoch {winner} beat epoch {loser}" in on.text
        counted = [one for place, pair in enumerate(pairs) if place != 3 for one in (pair.left, pair.right)]
        shown = {epoch: opinion.shown for epoch, opinion in blind.judged.epochs.items()}
        assert shown == {epoch: sum(one.epoch == epoch for one in counted) for epoch in shown}
        assert sum(opinion.wins for opinion in blind.judged.epochs.values()) == len(pairs) - 2
        await on.until(lambda: on.kept() == blind.judged)
        last = blind.judged
        await on.press("backspace")
        assert not blind.over and blind.judged != last
        await on.press("1", "r")
        assert "Pair 1 of" in on.text
        await on.press("escape")
        await on.until(lambda: on.app.screen is on.screen)
        assert "Blind: Epoch" in on.text


async def test_an_epoch_is_taken_along_and_its_use_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, loras = make_run(tmp_path), tmp_path / "home/ComfyUI/models/loras"
    loras.mkdir(parents=True)
    monkeypatch.setattr("tui.screens.epochs_taking.Path.home", lambda: tmp_path / "home")
    async with opened(root) as on:
        await on.press("G", "u")
        await on.until(lambda: isinstance(on.app.screen, TakeDialog))
        fields = on.app.screen.query(Input)
        assert [field.value for field in fields] == ["cat-e0012.safetensors", str(loras)]
        fields[1].value = str(tmp_path / "nowhere")
        await on.press("enter")
        assert "There is no such folder" in on.text and isinstance(on.app.screen, TakeDialog)
        await on.press("f4", "enter", "enter")
        await on.until(lambda: isinstance(on.app.screen, UsageDialog))
        assert (loras / "cat-e0012.safetensors").read_bytes() == (root / "cat-e0012.safetensors").read_bytes()
        assert "<lora:cat-e0012:0.8>" in on.text and "zorple" in on.text and "LoraLoaderModelOnly" in on.text
        for key, part in (("f", "<lora:cat-e0012:0.8>"), ("d", "import torch"), ("p", str(loras)), ("y", "ComfyUI")):
            await on.press(key)
            assert part in on.app.clipboard
        await on.press("escape")
        await on.until(lambda: on.kept().chosen == 12 and "taken along" in on.text)
        assert on.app.workplace.session.taken_to == str(loras)
        lora_file(loras / "cat-e0012.safetensors", ["lora_unet_another.lora_down.weight"])
        await on.press("u", "enter")
        await on.until(lambda: "A file of that name is there" in on.text)
        await on.press("r")
        await on.until(lambda: isinstance(on.app.screen, UsageDialog))
        assert (loras / "cat-e0012.safetensors").read_bytes() == (root / "cat-e0012.safetensors").read_bytes()
        await on.press("escape", "g", "u")
        await on.until(lambda: isinstance(on.app.screen, ErrorDialog))
        assert "Epoch 0 has no LoRA file" in on.text


async def test_several_epochs_are_blended_into_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path, every=4)
    monkeypatch.setattr("tui.screens.epochs_taking.Path.home", lambda: tmp_path)
    draw = np.random.default_rng(1)
    parts = {"lora_down.weight": (2, 48), "lora_up.weight": (16, 2), "alpha": ()}
    for file in sorted(root.glob("cat-e*.safetensors")):
        layer = "lora_unet_single_blocks_0_linear2"
        save_file(
            {f"{layer}.{part}": draw.normal(size=shape).astype(np.float32) for part, shape in parts.items()}, file
        )
    async with opened(root) as on:
        await on.press("B")
        await on.until(lambda: isinstance(on.app.screen, BlendDialog))
        assert "Averages" in on.text or "two files are needed" in on.text
        on.app.screen.query_one(Input).value = "5"
        await on.press("enter")
        assert "two files are needed; there are files of: 4,8,12" in on.words
        on.app.screen.query_one(Input).value = "4-8"
        await on.press("enter")
        await on.until(lambda: isinstance(on.app.screen, TakeDialog))
        made = root / "cat-blend-e0004-e0008.safetensors"
        assert "Use the blend" in on.text and made.name in on.text
        assert {name.rpartition(".")[2] for name in load_file(made)} == {"weight", "alpha"}
        await on.press("escape", "B")
        await on.until(lambda: isinstance(on.app.screen, BlendDialog))


async def test_strengths_of_one_prompt_are_shown_or_how_to_get_them(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path / "one", strengths=(0.6, 0.8, 1.0))) as on:
        await on.press("s")
        await on.until(lambda: not on.screen.query_one(EpochGrid)._pending)
        assert "strength 0.6" in on.text and "strength 0.8" in on.text
        await on.press("s")
        assert "strength 0.6" not in on.text and on.screen.query_one(EpochGrid).lines == [
            (0, 1.0),
            (1, 1.0),
            (2, 1.0),
        ]
    root = make_run(tmp_path / "two")
    async with opened(root) as on:
        await on.press("s")
        assert "--strengths 0.6,0.8,1.0" in on.words
        log = EventLog(RunFolder(root).events)
        log.append(SampleSaved("0-0-1.0.png", 120, 12, 0, PROMPTS[0][0], 40, "caption", 0.6))
        log.close()
        await on.press("R")
        await on.until(lambda: "strength 0.6" in on.text)


async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    size = (80, 24)
    bare = make_run(tmp_path / "bare", measures=False, prompts=())
    async with opened(bare, size) as on:
        assert '[validation] every_epochs = "auto"' in on.words
        await on.press("tab", "tab")
        assert "drew no pictures" in on.words
        await on.press("enter", "b", "a", "s", "c", "u")
        await on.until(lambda: isinstance(on.app.screen, TakeDialog))
    empty = make_run(tmp_path / "empty", epochs=0, measures=False, prompts=(), ends=False)
    RunFolder(empty).events.unlink()
    app = KilnApp(Workplace(tmp_path / "empty"), Traits())
    async with app.run_test(size=size) as pilot:
        app.push_screen(screen := EpochsScreen(app.workplace, empty))
        await until(pilot, lambda: app.screen is screen and screen.around is not None)
        await pilot.press(
            "j", "k", "5", "n", "v", "b", "y", "enter", "space", "c", "tab", "tab", "s", "z", "G", "down"
        )
        await pilot.pause()
        assert app.screen is screen


async def test_broken_and_missing_pictures_leave_a_word(tmp_path: Path) -> None:
    root = make_run(tmp_path)
    (root / "samples" / "0-0-1.0.png").write_bytes(b"no picture")
    (root / "samples" / "2-0-1.0.png").unlink()
    (tmp_path / "data" / "0.png").write_bytes(b"no picture either")
    async with opened(root) as on:
        assert on.text.count("cannot be") == 2 and "Not" in on.text


async def test_a_live_run_is_followed(tmp_path: Path) -> None:
    root = make_run(tmp_path, epochs=4, ends=False)
    async with opened(root) as on:
        await on.press("left")
        epoch = on.screen.shown.epoch
        log = EventLog(RunFolder(root).events)
        lora_file(root / "cat-e0005.safetensors")
        for event in (
            EpochDone(5, 5 * PER_EPOCH, 0.4), measured(5, 6),
            CheckpointSaved("/x/cat-e0005.safetensors", 5 * PER_EPOCH, 5, "epoch", 9),
            SampleSaved("0-0-1.0.png", 5 * PER_EPOCH, 5, 0, "a zorple on a meadow", 40, "caption"),
        ):  # fmt: skip
            log.append(event)
        log.close()
        on.screen.run.view.state = "training"
        await on.until(lambda: on.screen.shown.epochs[-1] == 5 or on.screen.run.poll())
        assert on.screen.shown.epoch == epoch, "the cursor stays where it is"
        await on.press("R")
        await on.until(lambda: on.screen.ready)


async def test_of_five_hundred_epochs_only_what_is_in_sight_is_drawn(tmp_path: Path) -> None:
    root = make_run(tmp_path, epochs=500, bottom=200, every=1, prompts=PROMPTS[:2], pictures=False)
    async with opened(root) as on:
        on.screen.action_step(1)
        for widget in (on.screen.query_one(part) for part in (EpochPlot, EpochTable, EpochGrid)):
            strips = widget.paint(widget.size.width, widget.size.height)
            assert 0 < len(strips) <= widget.size.height
            assert all(strip.cell_length == widget.size.width for strip in strips)
        grid = on.screen.query_one(EpochGrid)
        assert 0 < len(grid._wanted()) <= grid.size.width * grid.size.height // 8


async def test_what_went_out_of_sight_is_not_decoded(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path)) as on:
        grid = on.screen.query_one(EpochGrid)
        seen = grid._wanted()[0]
        assert grid._if_sought(seen) is not None
        assert grid._if_sought(("elsewhere.png", *seen[1:])) is None  # type: ignore[arg-type]


async def test_without_pictures_nothing_is_compared(tmp_path: Path) -> None:
    async with opened(make_run(tmp_path), (80, 24), settings=Settings(images="off")) as on:
        await on.press("b", "enter", "tab", "tab")
        assert on.app.screen is on.screen and "Pictures are off" in on.words


async def test_a_live_run_is_told_which_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Command] = []
    monkeypatch.setattr(WatchedRun, "live", True)
    monkeypatch.setattr(WatchedRun, "submit", lambda run, command: told.append(command))
    root = make_run(tmp_path, ends=False)
    write_judged(root, Judged().with_opinion(2, stars=1))
    async with opened(root) as on:
        assert told == [Keep((2,))], "what was starred before the run went on"
        await on.press("G", "4", "5", "n", "x", "enter", "0")
        assert told == [Keep((2,)), Keep((2, 12)), Keep((2,))]


async def test_text_from_outside_is_shown_harmless(tmp_path: Path) -> None:
    hostile = "a cat \x1b]0;owned\x07\x1b[2J \u202egnp.exe"
    root = make_run(tmp_path, prompts=((hostile, "scene"),))
    write_judged(root, Judged().with_opinion(6, note=hostile, stars=3))
    async with opened(root) as on:
        await on.press("G", *["left"] * 6)
        raw = "".join(strip.render(on.app.console) for strip in on.app.screen._compositor.render_strips())
        assert "\x1b]0;" not in raw and "\x1b[2J" not in raw and "\u202e" not in raw
        assert "\\x1b" in on.text
        await on.press("enter")
        await on.until(lambda: isinstance(on.app.screen, PairScreen))
        raw = "".join(strip.render(on.app.console) for strip in on.app.screen._compositor.render_strips())
        assert "\x1b]0;" not in raw and "\u202e" not in raw


async def test_workbench_and_list_of_runs_lead_there_and_back(tmp_path: Path) -> None:
    root = make_run(tmp_path)
    place = Workplace(tmp_path)
    place.show(root)
    app = KilnApp(place, Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None and place.view.seq)
        await pilot.press("3", "e")
        await until(pilot, lambda: isinstance(app.screen, EpochsScreen) and app.screen.ready)
        assert place.session.screen == "epochs" and app.screen.run.view is place.view
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.workbench)
        assert place.session.screen == "workbench"
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.cards)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, EpochsScreen) and app.screen.ready)
        assert place.session.screen == "runs", "the list is come back to, not the epochs of whatever is shown"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
    place.session.screen = "epochs"
    again = KilnApp(place, Traits())
    async with again.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(again.screen, EpochsScreen) and again.screen.ready)


async def test_there_is_no_way_to_epochs_that_are_not_there(tmp_path: Path) -> None:
    app = KilnApp(Workplace(tmp_path), Traits())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: app.workbench is not None and app.workbench.feed is not None)
        await pilot.press("3", "e")
        await pilot.pause()
        assert app.screen is app.workbench and "e Epochs" not in text_of(app)


@pytest.mark.parametrize(
    ("size", "utf8"), [((160, 45), False), ((60, 14), True), ((20, 5), False), ((4, 2), True)], ids=str
)
async def test_no_size_and_no_alphabet_breaks_it(
    tmp_path: Path, size: tuple[int, int], utf8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not utf8:
        monkeypatch.setenv("NO_COLOR", "1")
    async with opened(make_run(tmp_path, epochs=5), size, utf8) as on:
        await on.press("c", "tab", "tab", "z", "s", "s", "G", "3")
        if not utf8:
            assert on.text.replace("…", "").isascii(), "what Textual cuts a title with is replaced as it is written"
        for key, screen in (("enter", PairScreen), ("b", BlindScreen), ("v", VerdictDialog)):
            await on.press(key)
            await on.until(lambda kind=screen: isinstance(on.app.screen, kind))  # type: ignore[misc]
            await on.press("1", "space", "escape")
            await on.until(lambda: on.app.screen is on.screen)
