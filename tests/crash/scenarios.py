"""What is killed: each scenario begins in an empty home or goes on in one that a kill left, and ends for good.

A scenario says through ``note`` what it holds for done: that is what must be found again after a kill.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pocket import DEMO, merge, pictures, pocket_config

from engine.config import PromptConfig, RunConfig

Note = Callable[..., None]

PICTURES = 5
SEED = 11
STATE_EVERY = 2
PROMPTS = [{"prompt": "a zorple at the left", "seed": 3}]

VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw8bit": {"optimizer": {"name": "adamw8bit"}},
    "adafactor": {"optimizer": {"name": "adafactor"}, "training": {"accumulation": 1}},
    "prodigy": {"optimizer": {"name": "prodigy", "learning_rate": 1.0}},
    "schedulefree": {"optimizer": {"name": "adamw_schedulefree"}},
    "varied": {
        "lora": {"dropout": 0.1, "module_dropout": 0.1, "max_norm": 0.5},
        "dataset": {"flip": True, "captions": {"dropout": 0.2, "shuffle": True}},
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "saving": {"layouts": ["kohya", "diffusers"], "keep_states": 1, "keep_loras": 1},
    },
}

EDITS = 12
"""Versions that the scenarios of captions and settings go through."""


def import_all() -> None:
    """Import what the scenarios use; afterwards there is still one thread."""
    import transformers  # noqa: F401

    import engine.dataset.applying  # noqa: F401
    import tui.caption_desk
    import tui.settings  # noqa: F401


@contextlib.contextmanager
def moments(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell ``tell`` of every forward, backward and update before it happens."""
    from engine.blocks.transformer import LeanFlux
    from engine.models.autoencoder_net import Decoder, Encoder
    from engine.training.device import Compute
    from engine.training.gate import Gate

    places = [(kind, "forward", "forward") for kind in (LeanFlux, Encoder, Decoder)]
    places += [(Compute, "backward", "backward"), (Gate, "apply", "update")]
    before = [(kind, name, getattr(kind, name)) for kind, name, _ in places]

    def with_moment(act: Any, what: str) -> Any:
        def acting(*args: Any, **options: Any) -> Any:
            tell(what)
            return act(*args, **options)

        return acting

    for (kind, name, act), (_, _, what) in zip(before, places, strict=True):
        setattr(kind, name, with_moment(act, what))
    try:
        yield
    finally:
        for kind, name, act in before:
            setattr(kind, name, act)


def lay_out(home: Path) -> None:
    """Put the user's pictures in place, if they are not: that is nothing to be killed in."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "data").exists():
        pictures(home / "data", PICTURES)


def config_for(home: Path, variant: str) -> RunConfig:
    """Nine steps with samples, LoRA files and states in between, more often than anyone would."""
    busy = {
        "training": {"state_every_steps": STATE_EVERY},
        "saving": {"every_steps": 3, "every_epochs": 2},
        "sampling": {"prompts": PROMPTS, "at_start": True, "every_steps": 4},
    }
    return pocket_config(home, seed=SEED, **merge(busy, VARIANTS[variant]))


def run_folder(config: RunConfig) -> Path | None:
    """The folder of the run that a kill left, if there is one yet: a run being made has a hidden name."""
    return next(iter(sorted(path.parent for path in config.runs_dir.glob("[!.]*/config.toml"))), None)


def _tell_entries(note: Note) -> None:
    """Note every cache entry that is made, once it stands."""
    from engine.cache.store import Store

    put = Store.put

    def telling(self: Any, key: str, *rest: Any, **options: Any) -> None:
        put(self, key, *rest, **options)
        note(entry=key)

    Store.put = telling  # type: ignore[method-assign]


def _begin(config: RunConfig) -> Any:
    from engine.run import Run, open_run

    folder = run_folder(config)
    run = open_run(folder) if folder is not None else Run(config)
    run.start()
    return run


def _end(run: Any, note: Note) -> None:
    from engine.events import RunFailed

    failed = [entry.event.traceback for entry in run.events.since(0) if isinstance(entry.event, RunFailed)]
    note(state=run.state, failed=failed)


def train(home: Path, variant: str, note: Note) -> None:
    """A run, with its caches, states, LoRA files and samples."""
    _tell_entries(note)
    run = _begin(config_for(home, variant))
    run.join()
    _end(run, note)


def cache(home: Path, variant: str, note: Note) -> None:
    """`kiln cache`."""
    from engine.events import EventLog
    from engine.jobs import fill_caches

    _tell_entries(note)
    assert fill_caches(config_for(home, variant), EventLog())


def sample(home: Path, variant: str, note: Note) -> None:
    """`kiln sample`: two pictures from the base model."""
    from engine.events import EventLog
    from engine.jobs import sample_pictures

    config = config_for(home, variant)
    prompts = [PromptConfig(prompt="a zorple", seed=seed) for seed in (1, 2)]
    for path in sample_pictures(config, None, prompts, home / "out", EventLog()):
        note(picture=path.name)


def pocket_demo() -> Path:
    """Where the captions that the pictures came with stand."""
    return DEMO / "train"


def caption(number: int, version: int) -> str:
    """The text of a picture's caption after ``version`` edits (from 1)."""
    return f"a zorple, picture {number}, edit {version}" + " and more" * version


def edit_of(text: str) -> int:
    """The version of a caption, 0 for the one that the picture came with."""
    found = re.search(r", edit (\d+)", text)
    return int(found.group(1)) if found else 0


class Writing:
    """A user at the caption desk: goes on where the session says, and edits one picture after the other."""

    def __init__(self, home: Path, note: Note) -> None:
        from tui.caption_desk import CaptionDesk
        from tui.catalog import Row
        from tui.session import load_session, write_session

        self.note, self.path = note, home / ".lorakiln" / "session.json"
        self.path.parent.mkdir(exist_ok=True)
        self.session = load_session(self.path)

        def keep(table: dict[str, Any]) -> None:
            write_session(table, self.path)
            drafts = [table["draft"], *table["drafts"].values()]
            note(kept={draft["path"]: draft["text"] for draft in drafts if draft["path"]})

        self.desk = CaptionDesk(self.session, keep=keep, own=home)
        places = sorted((home / "data").glob("*.png"))
        self.rows = [Row(path, path.name, path.with_suffix(".txt")) for path in places]
        self.conflicts = 0
        for row in self.rows:
            self._open(row)

    def _open(self, row: Any) -> Any:
        sheet = self.desk.open(row)
        if sheet.theirs is not None:
            self.conflicts += 1
            self.desk.keep_mine(sheet)
        self.desk.look(sheet)
        return sheet

    def edit(self, number: int, version: int, save: bool = True) -> None:
        """Type a text; it is saved, or left as a draft."""
        sheet = self.desk.current = self._open(self.rows[number])
        if edit_of(sheet.text) > version:
            return  # typed before the kill
        self.desk.edit(sheet, caption(number, version))
        self.desk.tend(None)
        if save:
            self.desk.save(sheet)
        self.collect()

    def collect(self) -> None:
        """Note what is in its file."""
        for sheet in self.desk.collect():
            if not sheet.dirty:
                self.note(saved={str(sheet.row.path): sheet.clean})

    def close(self) -> None:
        """Leave with everything written."""
        from tui.session import save_session

        self.desk.settle(60.0)
        assert not self.desk.unsaved
        for sheet in map(self.desk.open, self.rows):
            self.note(saved={str(sheet.row.path): sheet.clean})
        self.desk.close()
        save_session(self.session, self.path)
        self.note(conflicts=self.conflicts)


def captions(home: Path, variant: str, note: Note) -> None:
    """Captions edited and saved, drafts kept, without a run."""
    config_for(home, variant)
    writing = Writing(home, note)
    for version, number in itertools.product(range(1, EDITS + 1), range(PICTURES)):
        writing.edit(number, version, save=version == EDITS or (version + number) % 3 > 0)
    writing.close()


def batches(home: Path, variant: str, note: Note) -> None:
    """All captions changed as one step, again and again, with undo and redo; one of them by hand in between."""
    from engine.dataset.applying import Wanted, apply, redo, undo
    from engine.dataset.captions import read_caption
    from engine.dataset.edits import open_caption, write_caption
    from engine.dataset.journal import Journal
    from engine.dataset.sidecar import load_sidecar

    paths = sorted((home / "data").glob("*.txt"))
    journal = Journal(journal_of(home))

    def versions() -> list[int]:
        return [edit_of(path.read_text()) for path in paths]

    top = journal.undoable()
    if journal.redoable() is not None:
        outcome = redo(journal)  # killed while it was taken back or done again: now it is done
        assert outcome is not None and not outcome.refused, outcome
    elif top is not None and top.what == f"edit {max(versions())}" and len(set(versions())) > 1:
        outcome = undo(journal)
        assert outcome is not None and not outcome.refused, outcome
    for version in range(max(1, max(versions())), EDITS + 1):
        by_hand = version % PICTURES
        write_caption(open_caption(paths[by_hand]), caption(by_hand, version))
        wanted = [
            Wanted(path, read_caption(path), caption(number, version))
            for number, path in enumerate(paths)
            if edit_of(path.read_text()) < version
        ]
        assert not apply(f"edit {version}", wanted, journal).refused
        if wanted and version % 3 == 0:
            undo(journal)
            redo(journal)
        assert versions() == [version] * PICTURES, versions()
        note(saved={str(path.with_suffix(".png")): path.read_text() for path in paths})
    # Whoever writes there next clears up what a kill left; after one in the last undo nothing else is written.
    load_sidecar(home / "data").with_stars(paths[0].with_suffix(".png").name, 3).save(home / "data")


def journal_of(home: Path) -> Path:
    """The journal of the scenario ``batches``."""
    return home / ".lorakiln" / "undo.jsonl"


def edited(home: Path, variant: str, note: Note) -> None:
    """A run whose captions are edited while it trains, in the process that trains it."""
    from engine.events import StepDone

    _tell_entries(note)
    run = _begin(config_for(home, variant))
    writing = Writing(home, note)
    seen = 0
    while True:
        ended = run.join(0.01)
        for entry in run.events.since(seen):
            seen = entry.seq
            if isinstance(entry.event, StepDone):
                writing.edit(entry.event.step % PICTURES, entry.event.step)
        writing.collect()
        if ended:
            break
    writing.close()
    _end(run, note)


def settings(home: Path, variant: str, note: Note) -> None:
    """Settings, session and a configuration, written over and over."""
    from engine.config_file import load_config, save_config
    from tui.session import load_session, save_session
    from tui.settings import keep_setting, load_settings

    config, session_path = config_for(home, variant), home / "session.json"
    config_path = home / "run.toml"
    if not config_path.exists():
        save_config(config, config_path)
    session = load_session(session_path)
    theme = load_settings().theme
    begin = 1 + min(int(theme) if theme.isdigit() else 0, session.window, load_config(config_path).seed - SEED)
    for version in range(begin, EDITS + 1):
        keep_setting("theme", str(version))
        note(settings=version)
        session.window, session.filter = version, "x" * (1000 * version)
        save_session(session, session_path)
        note(session=version)
        save_config(config.model_copy(update={"seed": config.seed + version}), config_path)
        note(config=version)


SCENARIOS: dict[str, Callable[[Path, str, Note], None]] = {
    "train": train,
    "cache": cache,
    "sample": sample,
    "captions": captions,
    "batches": batches,
    "edited": edited,
    "settings": settings,
}


def read_notes(path: Path) -> list[dict[str, Any]]:
    """What the children of a home said, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition: Callable[[], object], limit_s: float = 60.0) -> bool:
    """Whether ``condition`` holds before the limit."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
