"""Help tells what works here and now with the keys in force; the guide to trouble computes valid remedies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from habit_app import SmallApp
from textual.widgets import OptionList, Static

from engine.config import RunConfig
from engine.events import Slowed
from profiles.starters import demo_config
from tui.keys.active import Offer, by_group, commands, offers
from tui.keys.key import shown
from tui.keys.tables import ALL_KEYS
from tui.screens.dialogs import ErrorDialog
from tui.screens.help import HelpScreen, key_table
from tui.settings import Settings
from tui.symptoms import SYMPTOMS, guide, symptom_of, told_changes


def with_changes(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The configuration with values by dotted key; checked as a file would be."""
    table = config.model_dump()
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        inner = table
        for key in parents:
            inner = inner[key]
        assert last in inner, dotted
        inner[last] = value
    return RunConfig.model_validate(table)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """The demonstration's."""
    return demo_config(tmp_path)


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"training.batch_size": 1, "training.accumulation": 1, "training.gradient_checkpointing": "full"},
    {"training.steps": 900, "training.epochs": 0, "lora.rank": 64, "lora.alpha": 16.0, "dataset.resolution": 1024},
    {"lora.rank": 1, "optimizer.name": "prodigy", "optimizer.learning_rate": 1.0, "dataset.resolution": 512},
    {"training.epochs": 1, "optimizer.learning_rate": 4e-4, "dataset.flip": True, "schedule.warmup_steps": 500},
    {"optimizer.learning_rate": 1e-6, "dataset.captions.dropout": 0.1, "training.device": "cuda", "lora.alpha": None},
)


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda symptom: symptom.id)
def test_remedies_are_valid_and_change_something(symptom: Any, variant: int, config: RunConfig) -> None:
    given = with_changes(config, VARIANTS[variant])
    changes = symptom.changes(given)
    changed = with_changes(given, changes)
    assert (changed != given) == bool(changes)
    for dotted, value in changes.items():
        old: Any = given
        for part in dotted.split("."):
            old = getattr(old, part)
        assert old != value, dotted
    assert symptom.signs and symptom.causes and symptom.advice


@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda symptom: symptom.id)
def test_remedies_come_to_an_end(symptom: Any, config: RunConfig) -> None:
    """Applied again and again, no value runs away: each step stays valid, and memory's ladder has a last rung."""
    start = {"training.device": "cuda", "dataset.resolution": 1024, "lora.rank": 32, "optimizer.learning_rate": 1e-4}
    given = with_changes(config, start)
    for _ in range(40):
        given = with_changes(given, symptom.changes(given))
    assert 1e-6 <= given.optimizer.learning_rate <= 4e-4 and 4 <= given.lora.rank <= 32
    assert symptom.id != "memory" or symptom.changes(given) == {}


def test_memory_is_saved_first_where_it_costs_nothing(config: RunConfig) -> None:
    large = with_changes(config, {"training.device": "cuda", "dataset.resolution": 1024, "training.batch_size": 4})
    first = SYMPTOMS[0].changes(large)
    assert first["training.batch_size"] == 1 and first["training.accumulation"] == 4 * large.training.accumulation
    assert "dataset.resolution" not in first
    given, rungs = with_changes(large, first), []
    while "dataset.resolution" not in (changes := SYMPTOMS[0].changes(given)):
        rungs.append(changes)
        given = with_changes(given, changes)
    assert rungs[0] == {"memory.precision": "int8"}
    assert rungs[1] == {"training.gradient_checkpointing": "offload"}
    assert rungs[2:] == [{"memory.blocks_to_swap": count} for count in (16, 32, 57)]
    assert changes == {"dataset.resolution": 768}


def test_a_full_memory_is_recognised() -> None:
    assert symptom_of("The GPU's memory is full") is SYMPTOMS[0]
    assert symptom_of("The disk is full") is None


def test_keys_are_written_as_people_write_them() -> None:
    names = (
        "question_mark",
        "left_square_bracket",
        "escape",
        "ctrl+p",
        "S",
        "colon",
        "space",
        "pageup",
        "f1",
        "minus",
    )
    assert [shown(name) for name in names] == ["?", "[", "esc", "ctrl+p", "S", ":", "space", "page up", "f1", "-"]
    assert [shown(name) for name in ("slash", "plus", "equals_sign", "ctrl+underscore")] == ["/", "+", "=", "ctrl+_"]


async def test_help_tells_what_works_here_and_now() -> None:
    app = SmallApp()
    async with app.run_test(size=(120, 40)) as pilot:
        app.plain.query_one("#list").focus()
        await pilot.pause()
        ids = [offer.id for offer in offers(app.screen)]
        assert {"run.pause", "app.help", "app.leave"} <= set(ids) and len(ids) >= 10
        assert list(by_group(offers(app.screen)))[-1] == "Everywhere"
        app.plain.live = False
        ids = [offer.id for offer in offers(app.screen)]
        assert "run.pause" not in ids and "run.save" in ids
        app.plain.live = True
        app.plain.query_one("#editor").focus()
        await pilot.pause()
        ids = [offer.id for offer in offers(app.screen)]
        assert "run.pause" not in ids and "app.palette" in ids, "letters are typed into a text field"
        words = " ".join(offer.help for offer in offers(app.screen))
        assert "Take the last change back" in words
        assert "run.pause" in [offer.id for offer in commands(app.screen)], "the palette can do it all the same"


@pytest.mark.parametrize("room", [89, 69])
def test_long_entries_keep_to_their_columns(room: int) -> None:
    app = SmallApp()
    long = Offer(app, "x", ("f2", "ctrl+underscore", "alt+shift+page down"), "L", "words " * 20, "Group", "a.long_id")
    short = Offer(app, "y", ("f3",), "S", "Short words", "Group", "b")
    lines = key_table([long, short, Offer(app, "z", ("left",), "l", "Left", "Group", "edit.left")], room, True)
    rows = lines.plain.splitlines()
    assert max(map(len, rows)) <= room and "Left" not in lines.plain, "arrows are known"
    column = rows[1].index("words")
    assert all(row[column] not in " " and row[column - 2 : column] == "  " for row in rows[1:])
    assert "a.long_id" in rows[1] and rows[-1].index("Short words") == column


async def test_the_footer_tells_the_key_that_a_text_field_leaves() -> None:
    app = SmallApp()
    async with app.run_test(size=(120, 30)) as pilot:
        app.plain.query_one("#list").focus()
        while not ("? Help" in app.text and " q Leave" in app.text):
            await pilot.pause(0.02)
        app.plain.query_one("#editor").focus()
        while not ("f1 Help" in app.text and "^q Leave" in app.text and "? Help" not in app.text):
            await pilot.pause(0.02)


async def test_help_shows_the_users_own_keys_and_ids() -> None:
    settings = Settings.model_validate({"keymap": {"run.pause": "f9,A", "app.help": "f12"}})
    app = SmallApp(settings=settings)
    async with app.run_test(size=(120, 45)) as pilot:
        app.plain.query_one("#list").focus()
        await pilot.press("question_mark")
        assert app.screen is app.plain
        await pilot.press("f12")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        line = next(line for line in app.text.splitlines() if "Pause or resume" in line)
        assert "f9, A " in line and "run.pause" in line and "space" not in line
        await pilot.press("escape", "f9")
        assert app.plain.done == ["pause"]
        await pilot.press("A", "shift+a")
        assert app.plain.done == ["pause"] * 3


@pytest.mark.parametrize("size", [(160, 45), (100, 30), (80, 24)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_guide_applies_a_remedy(size: tuple[int, int], config: RunConfig) -> None:
    app = SmallApp(config=config)
    async with app.run_test(size=size) as pilot:
        app.plain.query_one("#list").focus()
        await pilot.press("question_mark", "2")
        await pilot.pause()
        assert "Out of memory at the start" in app.text and ("training.batch_size" in app.text or size[1] < 40)
        await pilot.press("j", "down")
        await pilot.pause()
        help_screen = app.screen
        assert isinstance(help_screen, HelpScreen)
        assert "look like pictures without it" in str(help_screen.query_one("#symptom", Static).render())
        for _ in range(3):
            await pilot.press("pagedown")
        await pilot.pause()
        assert "training.epochs" in app.text, "the changes can be read by keys at every size"
        await pilot.press("enter")
        await pilot.pause()
        assert app.screen is app.plain
        assert app.applied == [SYMPTOMS[2].changes(config)]


SLOW = Slowed(40, 1.8, "spill", "Steps take 1.8 times as long", ("memory.blocks_to_swap = 12",))


async def test_the_guide_begins_with_what_the_watch_found(config: RunConfig) -> None:
    app = SmallApp(config=config)
    app.slowed = lambda: SLOW
    async with app.run_test(size=(160, 45)) as pilot:
        app.plain.query_one("#list").focus()
        await pilot.press("question_mark", "2")
        await pilot.pause()
        assert "It has become slow" in app.text and "1.8 times" in app.text
        assert "memory.blocks_to_swap  0 to 12" in app.text
        await pilot.press("enter")
        await pilot.pause()
        assert app.applied == [{"memory.blocks_to_swap": 12}]


def test_the_watchs_values_are_taken_where_they_change_something(config: RunConfig) -> None:
    symptoms = guide(SLOW)
    assert [each.id for each in symptoms[1:]] == [each.id for each in SYMPTOMS if each.id != "slow"]
    assert symptoms[0].changes(config) == {"memory.blocks_to_swap": 12}
    taken = with_changes(config, symptoms[0].changes(config))
    assert symptoms[0].changes(taken) == guide()[-1].changes(taken), "the general advice, once it was taken"
    hostile = ("memory.blocks_to_swap", "= 1", "memory.nothing = 1", "nothing.at = 2", "memory = 3", "name = 'x'")
    assert told_changes(hostile, config) == {}
    two = ("training.batch_size = 3", "training.accumulation = 7")
    assert told_changes(two, config) == {"training.batch_size": 3, "training.accumulation": 7}


async def test_without_a_configuration_the_guide_still_advises() -> None:
    app = SmallApp()
    async with app.run_test(size=(100, 40)) as pilot:
        app.plain.query_one("#list").focus()
        await pilot.press("question_mark", "right", "enter")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen) and not app.applied
        assert "What helps" in app.text
        pages = (("3", "noise level"), ("4", "clipboard"), ("left", "noise level"), ("1", "What works here"))
        for key, words in pages:
            await pilot.press(key)
            await pilot.pause()
            assert words in app.text, key
        await pilot.press("escape")
        assert app.screen is app.plain


async def test_an_error_of_memory_leads_to_its_remedy(config: RunConfig) -> None:
    from engine.errors import RunError

    app = SmallApp(config=config)
    async with app.run_test(size=(100, 40)) as pilot:
        app.show_error(RunError("The GPU's memory is full", "24.1 GB wanted, 23.6 free", ""), "/runs/x/log")
        await pilot.pause()
        assert isinstance(app.screen, ErrorDialog)
        assert "Try: " in app.text and "/runs/x/log" in app.text and "? opens the guide" in app.text
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        assert app.screen.query_one(OptionList).highlighted == 0 and "To change" in app.text
        await pilot.press("enter")
        await pilot.pause()
        assert app.applied == [SYMPTOMS[0].changes(config)]


def test_every_key_has_words_of_its_own() -> None:
    for key in ALL_KEYS:
        assert key.label and key.help and key.group and "." in key.id, key.id
        assert key.help[0].isupper() and not key.help.endswith("."), key.help
