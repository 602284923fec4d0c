"""What helps while a caption is typed: undo over restarts, completion, spelling, template, trigger words."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_caption_pane import PaneApp, _quick, folder, opened, text_of
from test_workbench_editing import editing, idle, showing
from watching import until

from tui.caption_desk import CaptionDesk
from tui.caption_template import left_open, next_slot, skeleton, slots_of
from tui.screens.pick import PickDialog
from tui.screens.setup import SetupScreen
from tui.session import SessionState
from tui.settings import Editing, own_words_path
from tui.widgets.caption import CaptionPane
from tui.widgets.caption_aids import told_of_trigger
from tui.widgets.caption_editor import Marks

__all__ = ["_quick", "folder"]


def test_slots_are_walked_and_what_is_left_open_is_told() -> None:
    slots = slots_of("[a] of [b b]")
    text = skeleton("[a] of [b b]", "ohwx") + " [c]"
    assert slots == {"[a]", "[b b]"} and text == "ohwx, [a] of [b b] [c]"
    assert next_slot(text, 0, slots) == (6, 9) and next_slot(text, 7, slots) == (13, 18)
    assert next_slot(text, 14, slots) == (6, 9) and next_slot("[c]", 0, slots) is None
    assert left_open(text, slots) == ["[a]", "[b b]"]


def test_marks_move_with_the_text() -> None:
    from engine.dataset.past import Edit

    marks = Marks(20, None, ((0, 3), (5, 8), (12, 15)))
    assert marks.after(Edit(9, "", "xy")) == Marks(22, None, ((0, 3), (5, 8), (14, 17)))
    assert marks.after(Edit(6, "", "x")) == Marks(21, None, ((0, 3), (13, 16)))
    assert marks.after(Edit(4, "abcdef", "")) == Marks(14, None, ((0, 3), (6, 9)))


def test_the_trigger_word_over_the_set_is_told() -> None:
    assert told_of_trigger([], "").startswith("No trigger word is set")
    assert told_of_trigger(["ohwx"], "ohwx") == "ohwx in 1 captions: all well."
    told = told_of_trigger(["a", "ohwx ohwx", "b"], "ohwx")
    assert "2 missing, 1 twice" in told and "Training puts it in front" in told


async def test_undo_goes_back_beyond_a_restart(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    undo = tmp_path_factory.mktemp("undo")
    for number, expected in enumerate(["a red cat one", "a red cat one two"]):
        app = PaneApp(folder)
        desk = CaptionDesk(app.session, app.catalog.set_caption, pasts=lambda: undo)
        app.pane = CaptionPane(app.catalog, app.session, app.thumbnails, desk, id="caption")
        async with opened(app) as pilot:
            await pilot.press(*[" one", " two"][number])
            await until(pilot, lambda text=expected: text_of(folder, "a") == text + "\n")
        desk.close()
    app = PaneApp(folder)
    desk = CaptionDesk(SessionState(), app.catalog.set_caption, pasts=lambda: undo)
    app.pane = CaptionPane(app.catalog, app.session, app.thumbnails, desk, id="caption")
    async with opened(app) as pilot:
        seen = []
        for _ in range(30):
            await pilot.press("ctrl+z")
            seen.append(app.pane.editor.text)
            if app.pane.editor.text == "a red cat":
                break
        assert seen[-1] == "a red cat" and "a red cat one" in seen
        assert app.pane.editor.cursor_at == len("a red cat")
        await until(pilot, lambda: text_of(folder, "a") == "a red cat\n")
        for _ in seen:
            await pilot.press("ctrl+y")
        assert app.pane.editor.text == "a red cat one two"
        await pilot.press("ctrl+z", "x", "ctrl+y")
        assert app.pane.editor.text.endswith("x")  # what was undone before typing is gone
    desk.close()


async def test_words_of_the_dataset_are_offered_and_taken(folder: Path) -> None:
    app = PaneApp(folder)
    for row in app.catalog.rows:
        row.caption = "a brocade jacket"
    async with opened(app) as pilot:
        await until(pilot, lambda: app.pane.words.vocabulary.words)
        editor = app.pane.editor
        await pilot.press(*" br")
        assert editor.suggestion == ""
        await pilot.press("o")
        assert editor.suggestion == "cade"
        await pilot.press("left")
        assert editor.suggestion == "" and editor.text == "a red cat bro"
        await pilot.press("right", "backspace", "o")
        assert editor.suggestion == "cade"
        await pilot.press("tab", *" jac")
        assert editor.suggestion == "ket"
        await pilot.press("right")
        assert editor.text == "a red cat brocade jacket" and app.focused is editor
        await pilot.press("tab")
        assert app.focused is not editor or len(app.screen.focus_chain) == 1


async def test_the_template_is_filled_in_slot_by_slot(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app, 2) as pilot:
        await pilot.press("f5")
        assert app.pane.editor.text.startswith("ohwx, [framing] of [subject], wearing")
        assert app.pane.editor.selected_text == "[framing]"
        await pilot.press(*"close-up", "tab", *"a cat", "f5")
        assert app.pane.editor.selected_text == "[clothes]"
        await pilot.pause()
        assert "Not filled in: [clothes] [light] [gaze]" in str(app.pane.note.render())
        assert app.pane.editor.text.startswith("ohwx, close-up of a cat, wearing [clothes]")


async def test_a_configuration_has_a_template_of_its_own(folder: Path) -> None:
    app = PaneApp(folder)
    dataset = app.catalog.dataset
    assert dataset is not None
    async with opened(app, 2) as pilot:
        captions = dataset.captions.model_copy(update={"template": "a photo of [item], [place]"})
        app.catalog.dataset = dataset.model_copy(update={"captions": captions})
        app.catalog.version += 1  # another configuration was opened
        await until(pilot, lambda: "[place]" in app.pane.editor.slots)
        await pilot.press("f5")
        assert app.pane.editor.text == "ohwx, a photo of [item], [place]"
        assert app.pane.editor.selected_text == "[item]"
        await pilot.press(*"a cup", "tab", *"outside")
        assert app.pane.editor.text == "ohwx, a photo of a cup, outside"


async def test_misspelt_words_are_found_and_kept_as_right(folder: Path) -> None:
    words = folder / "words"
    words.write_text("a\nred\ncat\ndog\n")
    app = PaneApp(folder)
    app.pane = CaptionPane(app.catalog, app.session, app.thumbnails, editing=Editing(words=str(words)), id="caption")
    async with opened(app) as pilot:
        editor = app.pane.editor
        await until(pilot, lambda: app.pane.words.lists is not None)
        await pilot.press(*" sittting")
        await until(pilot, lambda: editor.marks.misspelt == ((10, 18),))
        await pilot.press("home", "f9")
        assert editor.selected_text == "sittting"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: own_words_path().exists() and not editor.marks.misspelt)
        assert own_words_path().read_text() == "sittting\n" and editor.text == "a red cat sittting"
        await pilot.press("f9")
        assert "Every word" in app.said[-1]


async def test_without_a_word_list_the_key_says_so(folder: Path) -> None:
    app = PaneApp(folder)
    app.pane = CaptionPane(app.catalog, app.session, app.thumbnails, editing=Editing(words="off"), id="caption")
    async with opened(app) as pilot:
        await until(pilot, lambda: app.pane.words.lists is not None)
        await pilot.press("f9")
        assert "off in the settings" in app.said[-1]


async def test_a_trigger_word_is_suggested_and_chosen(folder: Path) -> None:
    app = PaneApp(folder)
    for row in app.catalog.rows:
        row.caption = "a cat"
    async with opened(app) as pilot:
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        first = app.screen._offers[0].value
        assert "3 missing" in app.screen._foot and len(app.screen._offers) == 9
        await pilot.press("end", "enter")  # the last line: others
        await until(pilot, lambda: isinstance(app.screen, PickDialog) and app.screen._offers[0].value != first)
        second = app.screen._offers[0].value
        await pilot.press("enter")
        await until(pilot, lambda: app.messages and getattr(app.messages[-1], "word", "") == second)


async def test_a_recipe_reminds_of_what_to_describe(folder: Path) -> None:
    app = PaneApp(folder)
    async with opened(app) as pilot:
        assert not app.pane.reminder.display
        await pilot.press("f3")
        await until(pilot, lambda: app.pane.reminder.display)
        assert "character:" in str(app.pane.reminder.render()) and app.session.reminder == "character"
        for _ in range(10):
            await pilot.press("f3")
            if not app.session.reminder:
                break
        assert not app.session.reminder and not app.pane.reminder.display


async def test_a_chosen_trigger_word_comes_to_the_form_and_steps_are_kept_in_the_work_folder(tmp_path: Path) -> None:
    place = idle(tmp_path)
    async with showing(place) as (pilot, app):
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is editing(app).editor)
        await pilot.press("!")
        undo = tmp_path / ".kiln" / "undo"
        await until(pilot, lambda: undo.is_dir() and list(undo.glob("*.jsonl")))
        await until(pilot, lambda: place.catalog.tokenizers is not None)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, PickDialog))
        assert "CLIP " in app.screen._offers[0].remark
        word = app.screen._offers[0].value
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SetupScreen))
        assert app.screen.form.values["trigger"] == word
    place.close()
