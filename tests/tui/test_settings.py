"""The user's settings file: every value typed, every mistake told with its line, one value written by the screen."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import tui
from engine.errors import ConfigError
from tui.keymap import PRESETS, _meet, _spellings, check_id, check_keys, effective
from tui.keys.tables import ALL_KEYS
from tui.settings import Settings, keep_setting, load_settings, settings_path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings are read from."""
    path = tmp_path / "folder" / "settings.toml"
    monkeypatch.setenv("LORAKILN_SETTINGS", str(path))
    assert settings_path() == path
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_no_file_means_defaults() -> None:
    assert load_settings() == Settings()


def test_settings_are_read_and_checked(path: Path) -> None:
    write(path, 'model_folders = ["~/models", "/m"]\n[keymap]\n"run.pause" = "p"\n')
    settings = load_settings()
    assert settings.model_roots == [Path.home() / "models", Path("/m")]
    assert settings.keymap == {"run.pause": "p"}
    write(path, "model_folder = []\n")
    with pytest.raises(ConfigError, match="line 1: model_folder is not a known key; did you mean model_folders"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("theme = 3", "line 1: theme is 3"),
        ('\nimages = "sixl"', 'line 2: images is "sixl".*did you mean "sixel"'),
        ("refresh_hz = 400.0", "line 1: refresh_hz is 400"),
        ('ascii = "yes"', "line 1: ascii is .yes.; it should be one of auto, on, off"),
        ("mouse = 1", "line 1: mouse is 1"),
        ('[keymap]\n"run.puase" = "p"', "line 2: keymap.run.puase is no command's id; did you mean run.pause"),
        ('[keymap]\n"run.pause" = "foo"', 'line 2: keymap.run.pause has "foo", which is no key'),
        ('[keymap]\n"run.pause" = "hyper+"', "line 2: keymap.run.pause has .hyper.., which is no key"),
        ('[keymap]\n"run.pause" = "ctrl+m"', "line 2: keymap.run.pause has ctrl.m, which terminals send as enter"),
        ('[keymap]\n"run.pause" = "s"', 'line 1: keymap gives "s" to run.pause, but run.stop has it'),
        ('[keymap]\n"run.pause" = "?"', "line 1: keymap gives .question_mark. to run.pause, but app.help has it"),
        ('[keymap]\n"run.pause" = ""', "line 2: keymap.run.pause has"),
        ('[keymap]\n"caption.next" = "n"', "line 1: keymap gives caption.next the key .n., which is typed there"),
        ('[keymap]\n"view.zoom" = "s"', 'line 1: keymap gives "s" to view.zoom, but run.stop has it'),
    ],
    ids=range(14),
)  # fmt: skip
def test_mistakes_are_told_with_file_line_and_key(path: Path, text: str, told: str) -> None:
    write(path, text + "\n")
    with pytest.raises(ConfigError, match=told) as caught:
        load_settings()
    assert "settings.toml" in str(caught.value)


def test_ids_without_quotes_mean_the_same(path: Path) -> None:
    write(path, '[keymap]\nrun.pause = "p"\nrun.stop = "f9"\n')
    assert load_settings().keymap == {"run.pause": "p", "run.stop": "f9"}


def test_keys_may_be_swapped(path: Path) -> None:
    write(path, '[keymap]\n"run.pause" = "s"\n"run.stop" = "space"\n')
    assert load_settings().keymap["run.stop"] == "space"


def test_a_capital_may_be_named_in_both_ways_of_terminals() -> None:
    assert effective("default", {"run.pause": "A,f9"}) == {"run.pause": "A,f9"}
    assert effective("default", {"run.pause": "shift+a,shift+f9"}) == {"run.pause": "A,shift+f9"}
    assert effective("default", {"run.pause": "?"}) == {"run.pause": "question_mark"}


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_name_commands_and_keys_that_exist(preset: str) -> None:
    for name, keys in PRESETS[preset].items():
        assert check_id(name) and check_keys(keys)


def test_every_key_of_the_tables_is_one() -> None:
    for key in ALL_KEYS:
        assert check_keys(key.keys)


def test_every_binding_of_ours_can_be_changed() -> None:
    """Its id is in the tables, with the same keys, so that settings and help know it."""
    tables = {key.id: key for key in ALL_KEYS}
    unknown = []
    for found in pkgutil.walk_packages(tui.__path__, "tui."):
        if found.name == "tui.__main__":
            continue
        module = importlib.import_module(found.name)
        for name, kind in vars(module).items():
            if isinstance(kind, type) and kind.__module__ == found.name:
                for binding in vars(kind).get("BINDINGS", ()):
                    row = tables.get(getattr(binding, "id", None) or "")
                    if row is None or binding.key not in row.keys.split(","):
                        unknown.append(f"{found.name}.{name}: {binding}")
    assert not unknown


def test_by_default_no_key_means_two_things_in_one_place() -> None:
    for number, key in enumerate(ALL_KEYS):
        for other in ALL_KEYS[number + 1 :]:
            shared = set(_spellings(key.keys)) & set(_spellings(other.keys))
            assert not (shared and _meet(key.id, other.id)) or (key.id, other.id) in MEANT, (key.id, other.id, shared)


MEANT = {
    ("app.interrupt", "edit.copy"), ("app.no_suspend", "edit.undo"), ("app.no_suspend", "dataset.undo"),
    ("app.no_suspend", "findings.undo"), ("app.leave", "compare.back"),
}  # fmt: skip
"""In the editor ctrl+c copies; there, in the dataset and in its findings ctrl+z undoes; q leaves the comparison
like any screen."""


def test_ids_are_there_once() -> None:
    ids = [key.id for key in ALL_KEYS]
    assert len(ids) == len(set(ids))


def test_one_value_is_written_and_the_rest_kept(path: Path) -> None:
    keep_setting("theme", "light")
    assert load_settings().theme == "light"
    write(path, '# mine\nimages = "off"  # slow\ntheme = "light"\n[keymap]\n"run.pause" = "p"\n')
    keep_setting("theme", "high-contrast")
    text = path.read_text()
    assert "# mine" in text and "# slow" in text and load_settings().theme == "high-contrast"
    write(path, "broken = [")
    with pytest.raises(ConfigError):
        keep_setting("theme", "light")
    assert path.read_text() == "broken = ["


@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_a_linked_file_is_written_where_it_lies(path: Path, tmp_path: Path, there: bool) -> None:
    """Who keeps settings in a folder of dotfiles finds them there, and the link as it was."""
    kept = tmp_path / "dotfiles" / "kiln.toml"
    kept.parent.mkdir()
    if there:
        kept.write_text("mouse = false\n")
    path.parent.mkdir()
    path.symlink_to(kept)
    keep_setting("theme", "light")
    assert path.is_symlink() and path.readlink() == kept
    assert load_settings() == Settings(theme="light", mouse=not there) and "light" in kept.read_text()
