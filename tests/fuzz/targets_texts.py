"""Targets that read texts: configurations and their kin, captions, queries, events, and what is shown of anything."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

from engine.config import CaptionConfig, RunConfig
from engine.config_file import parse_config, parse_toml, read_text
from engine.config_writer import config_text, edited_text
from engine.dataset.captions import caption_text, final_caption, read_caption
from engine.dataset.edits import open_caption
from engine.dataset.history import load_history
from engine.dataset.journal import Change, Journal, Step
from engine.dataset.query import haystack, query_of
from engine.dataset.query_parse import QueryError, parse, written
from engine.dataset.sidecar import SIDECAR_NAME, load_sidecar
from engine.errors import ConfigError, DatasetError, EngineError
from engine.events import EVENT_TYPES, Entry, entry_from_json, last_entry, replay
from engine.events import Log as LogEvent
from engine.files import slug
from engine.sealed import sealed
from engine.text import safe_text
from engine.toml_positions import find_positions
from profiles.recipes import FOLDER as RECIPES
from profiles.recipes import read_recipe
from profiles.starters import starter
from profiles.tiers import FOLDER as TIERS
from profiles.tiers import read_tier
from tests.fuzz.target import Target, as_file, assert_harmless, scratch, text_of

CONFIG = """\
name = "a"
[model]
transformer = "t.safetensors"
autoencoder = "a.safetensors"
clip_l = "c.safetensors"
t5 = 't5.safetensors'
[[dataset.folders]]
path = "data" # a comment
repeats = 2
[dataset]
resolution = 64
captions = { trigger_word = "z\\u00e9", shuffle = true }
[lora]
rank = 4
ranks = { "img_attn" = 2 }
exclude = ["a.*b",
  'c']
[optimizer]
learning_rate = 1e-4
[[sampling.prompts]]
prompt = \"\"\"
two
lines\"\"\"
"""


def _config_seeds() -> list[bytes]:
    return [CONFIG.encode(), starter("flux_dev", "a").encode()]


def _config(data: bytes) -> None:
    path = as_file(data, "run.toml")
    config = parse_config(read_text(path), path)
    again = parse_config(config_text(config), path)
    assert again == config, "what is written reads back as something else"


def _positions(data: bytes) -> None:
    text = text_of(data)
    table = parse_toml(text)
    lines = find_positions(text)
    count = text.count("\n") + 1
    assert all(1 <= line <= count for line in lines.values())
    missing = [key for key in table if (key,) not in lines]
    assert not missing, f"no line for {missing[:3]!a}"


def _edit(data: bytes) -> None:
    text = text_of(data)
    parse_toml(text)
    new = edited_text(text, {"lora.rank": 8, "name": 'b"\x1b'})
    assert tomllib.loads(new)["lora"]["rank"] == 8


def _toml(folder: Path, read: Callable[[Path], object]) -> tuple[Callable[[bytes], None], Callable[[], list[bytes]]]:
    """A target's function and seeds for a kind of TOML file that ships."""
    return (
        lambda data: (read(as_file(data, "a.toml")), None)[1],
        lambda: [path.read_bytes() for path in sorted(folder.glob("*.toml"))[:3]],
    )


_recipe, _recipe_seeds = _toml(RECIPES, read_recipe)
_tier, _tier_seeds = _toml(TIERS, read_tier)


def _sidecar_seeds() -> list[bytes]:
    return [b'version = 1\n[pictures."a.png"]\nstars = 3\n', b'version = 1\n[pictures."b/\\u00e9.png"]\nstars = 5\n']


def _sidecar(data: bytes) -> None:
    folder = scratch() / "dataset"
    folder.mkdir(exist_ok=True)
    (folder / SIDECAR_NAME).write_bytes(data)
    notes = load_sidecar(folder)
    assert all(note.stars is None or 1 <= note.stars <= 5 for note in notes.pictures.values())


_CAPTIONS = (
    CaptionConfig(),
    CaptionConfig(shuffle=True, tag_dropout=0.3, wildcards=True, trigger_word="zé", keep_tokens=1, prefix="a "),
)


def _caption_seeds() -> list[bytes]:
    return [
        b"a cat, sitting\n", "é, {red|blue} cat\r\nline two\r\n".encode(), "\ufeffa".encode(),
        "ab\n".encode("utf-16"), b"\xfe\xff\0a\0b", b"{{a}}, {b|c|}, {{", b"a\xc2\x85b\xe2\x80\xa8c",
    ]  # fmt: skip


def _caption(data: bytes) -> None:
    path = as_file(data, "a.txt")
    text = read_caption(path)
    assert caption_text(data, path).strip() == text
    assert open_caption(path).text.strip() == text
    for config in _CAPTIONS:
        for regularization in (False, True):
            final = final_caption(text, config, 1, 2, 3, regularization)
            assert "\n" not in final and "\r" not in final


def _query(data: bytes) -> None:
    from tui.catalog_rows import Row

    text = data.decode("utf-8", "replace")
    picture = Row(Path("a.png"), "a.png", Path("a.txt"), text, haystack=haystack("a.png", text))
    tree = parse(text)
    assert parse(written(tree)) == tree, "what is written reads back as something else"
    query_of(text, trigger="zok").matches(picture)


def _event_seeds() -> list[bytes]:
    from tests.fuzz.made_events import every_event

    lines = [Entry(n, 1.5e9 + n, event).to_json() for n, event in enumerate(every_event(), 1)]
    assert {json.loads(line)["type"] for line in lines} == set(EVENT_TYPES)
    sealed_lines = "\n".join(map(sealed, lines)) + "\n"
    return [line.encode() for line in lines] + ["\n".join(lines).encode() + b"\n", sealed_lines.encode()]


def _events(data: bytes) -> None:
    """A run's events file, folded into what the screens, lists and reports show."""
    from tui.glance import glance
    from tui.run_list import summed
    from tui.view import RunView, fold

    path = as_file(data, "events.jsonl")
    last_entry(path)
    view = RunView()
    for entry in replay(path):
        assert entry_from_json(entry.to_json()).to_json() == entry.to_json()
        fold(view, entry)
    folder = scratch() / "run"
    folder.mkdir(exist_ok=True)
    json.dumps(summed(folder, view).to_dict())
    assert repr(summed(folder, glance(path))) == repr(summed(folder, view)), "a list shows something else"
    assert_harmless(*(line.text for line in view.log))
    assert view.step_parts is None or len(view.step_parts) > 0
    repr((view.eta_s, view.loss_change, view.step_halves, view.goal_step, view.active_s))


def _history_seeds() -> list[bytes]:
    return [b'{"epoch": 1, "captions": {"/a.png": "a cat"}}\n{"epoch": 2, "captions": {}}\n', b'{"epoch": 1}']


def _history(data: bytes) -> None:
    path = as_file(data, "captions.jsonl")
    first = load_history(path)
    second = load_history(path)
    assert second.epochs == first.epochs and not second.damaged, "what was cut off is read again"
    first.record(first.decided + 1, {"/b.png": "b"})
    assert load_history(path).decided == first.decided


def _safe(data: bytes) -> None:
    for raw in (data.decode("utf-8", "replace"), data.decode("latin-1"), text_of(data)):
        for newlines in (False, True):
            shown = safe_text(raw, 500, newlines)
            assert_harmless(shown)
            assert newlines or "\n" not in shown
            assert safe_text(shown, 10_000, newlines) == shown, "not idempotent"
        name = slug(raw)
        assert Path("/runs", name).parent == Path("/runs") and name not in ("", ".", "..") and len(name) <= 80
    try:
        raise EngineError(safe_text(text_of(data)), text_of(data))
    except EngineError as err:
        from tui.error_text import error_text

        assert_harmless(error_text(err))


def _told(data: bytes) -> None:
    from tui.symptoms import told_changes

    config = RunConfig.model_validate(tomllib.loads(CONFIG))
    for key in told_changes((text_of(data),), config):
        assert_harmless(key)
    LogEvent("info", text_of(data))


def _journal_seeds() -> list[bytes]:
    path = scratch() / "made.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for number in range(3):
        change = Change(Path(f"/{number}.txt"), None if number else "é\r\n", "b\n", "é\r\n" if number else None)
        step = journal.record(Step("Replace", (change, Change(Path("/c\udcff.txt"), "a", "b"))))
    journal.amend(step, step.changes[:1])
    journal.undone(step)
    journal.redone(step)
    return [path.read_bytes(), b'{"did": "do", "number": 1, "what": "a", "changes": [["/a", "b", null]]}\n']


def _journal(data: bytes) -> None:
    path = as_file(data, "undo.jsonl")
    journal = Journal(path)
    before = journal.steps()
    assert all(change.path.name or change.path for step in before for change in step.changes)
    made = journal.record(Step("after", (Change(Path("/a"), "a", "b"),)))
    again = Journal(path)
    assert again.undoable() == made and again.redoable() is None, "what is recorded after damage is lost"


TARGETS = (
    Target(
        "config", _config, (ConfigError,), _config_seeds,
        ("engine.config_file.parse_config", "engine.config_file.load_config", "engine.config_file.read_text",
         "engine.config_writer.config_text"),
    ),
    Target(
        "toml-positions", _positions, (ConfigError,), _config_seeds,
        ("engine.config_file.parse_toml", "engine.toml_positions.find_positions"),
    ),
    Target("config-edit", _edit, (ConfigError,), _config_seeds, ("engine.config_writer.edited_text",)),
    Target("recipe", _recipe, (ConfigError,), _recipe_seeds, ("profiles.recipes.read_recipe",)),
    Target("tier", _tier, (ConfigError,), _tier_seeds, ("profiles.tiers.read_tier",)),
    Target("sidecar", _sidecar, (DatasetError,), _sidecar_seeds, ("engine.dataset.sidecar.load_sidecar",)),
    Target(
        "caption", _caption, (DatasetError,), _caption_seeds,
        ("engine.dataset.captions.read_caption", "engine.dataset.captions.caption_text",
         "engine.dataset.captions.final_caption", "engine.dataset.edits.open_caption"),
    ),
    Target(
        "query", _query, (QueryError,),
        lambda: [
            b'cat "black dog" -white', "É -\"x y".encode(), b"a\tb", "ß ſ İ".encode(),
            b'tag:"red *" tokens:>77 OR ar:4:3..16:9',
            b"NOT (stars:>=3 AND -dup:) res:<1024 bucket:832x1216 excluded:no missing:trigger", b"img(1).png \\*?",
        ],
        ("engine.dataset.query.query_of", "engine.dataset.query_parse.parse", "engine.dataset.query_parse.written"),
    ),
    Target(
        "events", _events, (), _event_seeds,
        ("engine.events.entry_from_json", "engine.events.replay", "engine.events.last_entry", "tui.view.fold",
         "tui.run_list.read_view", "tui.glance.glance"),
        (b"[" * 100_000 + b"\n",
         b'{"seq": 1, "time": 1.0, "type": "Log", "level": [], "text": {}}\n',
         b'{"seq": 1e999, "time": 1.0, "type": "Log", "level": "info", "text": "a"}\n',
         b'{"seq": 1, "time": 1, "type": "StopPlanned", "epoch": 100000000000000000000000000}\n',
         b'{"seq": 1, "time": 1, "type": ["Log"]}\n',
         b'{"seq": 1, "time": 1, "type": "Slowed", "step": 1, "factor": 2, "cause": "", "text": "", "changes": 3}\n'),
    ),
    Target("captions-history", _history, (), _history_seeds, ("engine.dataset.history.load_history",)),
    Target("captions-undo", _journal, (), _journal_seeds, ("engine.dataset.journal.Journal",)),
    Target(
        "safe-text", _safe, (), lambda: [b"plain", b"\x1b]52;c;QQ==\x07", "e\u0301\u0301\u202e\U000e0041é".encode()],
        ("engine.text.safe_text", "engine.files.slug", "tui.error_text.error_text"),
    ),
    Target(
        "told-changes", _told, (), lambda: [b"memory.blocks_to_swap = 24", b"training.batch_size = 1"],
        ("tui.symptoms.told_changes",), (b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000),
    ),
)  # fmt: skip
