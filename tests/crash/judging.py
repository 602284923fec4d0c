"""What must hold on the disk: after every kill, and when a killed scenario has come to its end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import scenarios
import torch
from PIL import Image
from safetensors.torch import load_file
from scenarios import edit_of

from engine.cache.store import Store
from engine.config_file import load_config
from engine.dataset.journal import Journal, Step
from engine.events import EpochDone, RunStarted, StateChanged, StepDone, replay
from engine.files import RunFolder, is_held
from engine.training.checkpoint import load_newest
from tui.session import load_session

if TYPE_CHECKING:
    from harness import Chain, Zygote

LEFTOVERS = (".part", ".old", ".bad", ".tmp", ".sock")


def valid_entries(home: Path) -> set[str]:
    """Keys of the cache entries below ``home`` that are whole."""
    store = Store(home / "cache")
    keys = [path.stem for path in (home / "cache").glob("*/*.safetensors")]
    return {key for key in keys if store.verify(key)}


def no_valid_entry_again(chain: Chain, valid: set[str], notes: Iterable[dict[str, Any]]) -> None:
    """Nothing that stood in the cache before an attempt was encoded in it."""
    again = valid & {note["entry"] for note in notes if "entry" in note}
    assert not again, f"{len(again)} whole cache entries were made again\n{chain}"


def after_kill(chain: Chain) -> None:
    """What holds whenever the power of the user's hand is gone: whole files, and all that was said to be done."""
    home = chain.home
    captions_are_whole(chain)
    if chain.scenario == "batches":
        journal_opens(chain)
    for note in chain.notes:
        for what in ("settings", "session", "config"):
            if what in note:
                assert version_of(home, what) >= note[what], f"{what} fell back behind {note[what]}\n{chain}"
    config = home / "runs" / "test" / "config.toml"
    if config.exists():
        load_config(config)
    for path in home.glob("runs/*/*.safetensors"):
        load_file(path)
    for path in [*home.glob("runs/*/samples/*.png"), *home.glob("out/*.png")]:
        pixels(path)


def captions_are_whole(chain: Chain) -> None:
    """Each caption is one of its versions, at least the newest that was said to be in its file; drafts likewise."""
    home = chain.home
    session = load_session(home / ".lorakiln" / "session.json")
    drafts = {draft.path: draft.text for draft in (session.draft, *session.drafts.values()) if draft.path}
    saved: dict[str, int] = {}
    kept: dict[str, int] = {}
    for note in chain.notes:
        saved |= {path: max(saved.get(path, 0), edit_of(text)) for path, text in note.get("saved", {}).items()}
        kept |= {path: max(kept.get(path, 0), edit_of(text)) for path, text in note.get("kept", {}).items()}
    for number, picture in enumerate(sorted((home / "data").glob("*.png"))):
        path = picture.with_suffix(".txt")
        text = path.read_text() if path.exists() else ""
        version = edit_of(text)
        if version:
            assert text.removesuffix("\n") == scenarios.caption(number, version), f"{path} is torn: {text!r}\n{chain}"
        elif chain.kills and text:
            assert (scenarios.pocket_demo() / path.name).read_text() == text, f"{path} is torn: {text!r}\n{chain}"
        assert version >= saved.get(str(picture), 0), f"{path} lost what was saved\n{chain}"
        found = max(version, edit_of(drafts.get(str(picture), "")))
        assert found >= kept.get(str(picture), 0), f"{path} lost a draft\n{chain}"


def journal_opens(chain: Chain) -> None:
    """What was done to captions can be undone: the newest step's files hold what it found or what it left."""
    journal = Journal(scenarios.journal_of(chain.home))
    steps = journal.steps()
    assert not journal.damaged, f"more than a torn end\n{chain}"
    said = max((edit_of(text) for note in chain.notes for text in note.get("saved", {}).values()), default=0)
    assert len(steps) >= min(said, 1), f"the journal lost what was done\n{chain}"
    for change in (journal.redoable() or journal.undoable() or Step("", ())).changes:
        text, by_hand = change.path.read_text().removesuffix("\n"), edit_of(change.path.read_text())
        newer = by_hand > edit_of(change.after or "")
        assert newer or text in (change.before, change.after), f"{change.path} is neither old nor new\n{chain}"


def version_of(home: Path, what: str) -> int:
    """The version that a file of the scenario ``settings`` holds; it can be read, or this raises."""
    from engine.config_file import check_table, parse_toml
    from tui.settings import Settings

    if what == "session":
        return load_session(home / "session.json").window
    if what == "config":
        return load_config(home / "run.toml").seed - scenarios.SEED
    path = home / "xdg-config" / "lorakiln" / "settings.toml"
    text = path.read_text()
    return int(check_table(parse_toml(text, path), text, Settings, path).theme)


def at_the_end(zygote: Zygote, chain: Chain, undisturbed: Path) -> None:
    """What holds once a killed scenario has come to its end."""
    home = chain.home
    captions_are_whole(chain)
    states = [note for note in chain.notes if "state" in note]
    assert all(note["state"] == "finished" for note in states), f"{states}\n{chain}"
    leftovers = [str(path.relative_to(home)) for path in home.rglob("*") if path.name.endswith(LEFTOVERS)]
    unborn = [folder.name for folder in home.glob("runs/*") if not (folder / "config.toml").exists()]
    assert not unborn, f"never became a run: {unborn}\n{chain}"
    if chain.scenario == "edited":  # an entry of a caption that is edited again meanwhile: swept after an hour
        leftovers = [path for path in leftovers if not path.startswith("cache/")]
    assert not leftovers, f"left behind: {leftovers}\n{chain}"
    assert not [lock for lock in home.rglob("*.lock") if is_held(lock)], chain
    assert scenarios.wait_until(lambda: not living_in(home)), f"processes go on: {living_in(home)}\n{chain}"
    chain.conflicts = sum(note.get("conflicts", 0) for note in chain.notes)
    if chain.scenario == "settings":
        for what in ("settings", "session", "config"):
            assert version_of(home, what) == scenarios.EDITS, chain
    if chain.scenario in ("captions", "batches"):
        for path in (home / "data").glob("*.txt"):
            assert edit_of(path.read_text()) == scenarios.EDITS, f"{path}\n{chain}"
    if chain.scenario == "sample":
        same_samples(chain, home / "out", undisturbed / "out")
    if chain.scenario in ("train", "cache", "sample"):
        same_entries(chain, home / "cache", undisturbed / "cache")
    if chain.scenario == "train":
        same_run(chain, run_of(home), run_of(undisturbed))
    if chain.scenario == "edited":
        same_run(chain, run_of(home), replayed(zygote, chain))
    if chain.scenario in ("train", "edited"):
        tell_course(chain, run_of(home))


def run_of(home: Path) -> Path:
    """The folder of the one run in ``home``."""
    (folder,) = {path.parent for path in home.glob("runs/*/config.toml")}
    return folder


def replayed(zygote: Zygote, chain: Chain) -> Path:
    """The same run undisturbed, from its configuration and its written-down captions alone."""
    folder, alone = run_of(chain.home), chain.home / "alone"
    for name in ("samples", "state"):
        (alone / "runs" / "test" / name).mkdir(parents=True)
    for name in ("config.toml", "captions.jsonl"):
        (alone / "runs" / "test" / name).write_bytes((folder / name).read_bytes())
    for name in ("data", "cache"):
        (alone / name).symlink_to(chain.home / name)
    before = (folder / "captions.jsonl").read_bytes()
    zygote.attempt("train", chain.variant, alone)
    assert (run_of(alone) / "captions.jsonl").read_bytes() == before, f"captions were taken anew\n{chain}"
    return run_of(alone)


def same_entries(chain: object, ours: Path, wanted: Path) -> None:
    """The same cache entries with the same bits in them."""
    files, others = ({path.stem: path for path in root.glob("*/*.safetensors")} for root in (ours, wanted))
    assert files.keys() == others.keys(), f"{files.keys() ^ others.keys()} are not in both\n{chain}"
    for key, path in files.items():
        same_tensors(f"cache entry {key}\n{chain}", load_file(path), load_file(others[key]))


def same_samples(chain: object, ours: Path, wanted: Path) -> None:
    """Every picture has the pixels of the undisturbed one of its name; a further one of the same seed too."""
    names, others = ({path.name for path in folder.glob("*.png")} for folder in (ours, wanted))
    assert names >= others, f"{others - names} are missing\n{chain}"
    for name in names:
        first = re.sub(r"(seed\d+)-\d+", r"\1", name)
        assert np.array_equal(pixels(ours / name), pixels(wanted / first)), f"{name} is another picture\n{chain}"


def pixels(path: Path) -> np.ndarray:
    """A picture, read to its end."""
    with Image.open(path) as picture:
        return np.asarray(picture)


def same_run(chain: object, ours: Path, wanted: Path, all_told: bool = True) -> None:
    """The same LoRA files, training state, losses and samples; ``all_told``: no loss is missing."""
    files, others = ({path.name: path for path in folder.glob("*.safetensors")} for folder in (ours, wanted))
    assert files.keys() == others.keys() and others, f"{files.keys() ^ others.keys()} are not in both\n{chain}"
    for name, path in files.items():
        same_tensors(f"{name}\n{chain}", load_file(path), load_file(others[name]))
    same_samples(chain, ours / "samples", wanted / "samples")
    losses, other_losses = told_losses(ours), told_losses(wanted)
    if not all_told:
        other_losses = {key: loss for key, loss in other_losses.items() if key in losses}
    assert losses == other_losses and losses, f"losses differ: {losses} {other_losses}\n{chain}"
    (state, damaged), (other, _) = (load_newest(RunFolder(folder).states) for folder in (ours, wanted))
    assert state is not None and other is not None and not damaged, f"{damaged}\n{chain}"
    same_tensors(f"adapter\n{chain}", state.lora, other.lora)
    same_tensors(f"optimizer\n{chain}", state.optimizer, other.optimizer)
    assert state.optimizer_json == other.optimizer_json, chain
    places = [(place.step, place.epoch, place.index, place.loss_sum) for place in (state.place, other.place)]
    assert places[0] == places[1], f"{places}\n{chain}"


def same_tensors(what: str, ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """The same names, and bit for bit the same values."""
    assert ours.keys() == wanted.keys(), what
    different = [name for name in wanted if not torch.equal(ours[name], wanted[name])]
    assert not different, f"{different[:3]} of {what}"


def told_losses(folder: Path) -> dict[tuple[str, int], float]:
    """The losses of a run's event file as a view folds them: the last one told of a step or an epoch counts."""
    losses: dict[tuple[str, int], float] = {}
    for entry in replay(folder / "events.jsonl"):
        if isinstance(entry.event, StepDone):
            losses["step", entry.event.step] = entry.event.loss
        elif isinstance(entry.event, EpochDone):
            losses["epoch", entry.event.epoch] = entry.event.loss
    return losses


def tell_course(chain: Chain, folder: Path) -> None:
    """Take from the event file how much was done again, and how long a start took."""
    last, begun, starts, started = 0, 0.0, 0, True
    numbers: list[int] = []
    for entry in replay(folder / "events.jsonl"):
        numbers.append(entry.seq)
        event = entry.event
        if isinstance(event, StateChanged) and event.state == "preparing":
            chain.recovering += starts > 1 and not started
            begun, started = entry.time, False
            starts += 1
        elif isinstance(event, RunStarted):
            chain.lost.append(last - event.resumed_step)
            chain.ready_s.append(entry.time - begun)
            started = True
        elif isinstance(event, StepDone):
            last = event.step
    assert numbers == list(range(1, len(numbers) + 1)), f"event numbers have gaps\n{chain}"
    # What a state is written of stands when the next one is due: at most two intervals lie between.
    assert all(0 <= lost <= 2 * scenarios.STATE_EVERY for lost in chain.lost), f"{chain.lost} lost\n{chain}"


def living_in(home: Path) -> list[int]:
    """Processes that go on in a home that has come to its end: children of killed ones."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        environ = process.info["environ"] or {}
        if environ.get("XDG_CACHE_HOME", "").startswith(str(home)):
            found.append(process.info["pid"])
    return found
