"""Every kind of file that is read back: how a good one is made, how it is read, and what damage to it may do.

A kind is made and read by the product's own code. Reading a damaged one gives one of four things: an
:class:`EngineError` (refused), :data:`DETECTED` (the reader noticed and goes on without it), the undamaged value, or
a value that :attr:`Kind.accepts` allows. Whatever else happens is a defect.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import kinds_captioners as machine
import numpy as np
import torch
from kinds_dataset import (
    make_caption,
    make_journal,
    make_mend_journal,
    make_quality_file,
    make_sidecar,
    read_journal,
    read_mend_journal,
    read_quality_file,
)
from kinds_screen import (
    DETECTED,
    make_judged_file,
    make_note_file,
    make_past_file,
    make_session_file,
    make_settings_file,
    make_sweep_file,
    make_theme_file,
    make_words_file,
    read_judged_file,
    read_note_file,
    read_past_file,
    read_session_file,
    read_settings_file,
    read_sweep_file,
    read_themes_file,
)
from pocket import FILES, pocket_config
from safetensors.torch import save_file
from torch import Tensor

from engine.cache.store import Store, content_key
from engine.config_file import load_config, save_config
from engine.dataset.captions import read_caption
from engine.dataset.history import CaptionHistory, load_history
from engine.dataset.sidecar import load_sidecar
from engine.dataset.spelling import read_words
from engine.events import EpochDone, EventLog, Log, StepDone, replay
from engine.files import RunFolder
from engine.hardware.cards import card_named
from engine.locks import Holder, holder_in, lock_folder
from engine.lora.formats import load_lora, save_lora
from engine.lora.targets import Target
from engine.memory.frozen import block_tensors
from engine.memory.load import load_base
from engine.memory.packed_copy import CopyReader, CopyWriter, DamagedCopy, copy_format
from engine.memory.rungs import Taken, read_taken, write_taken
from engine.models import header
from engine.models.flux import FluxParams
from engine.models.flux_file import layout
from engine.models.scorer_files import clip_files
from engine.models.tokenizers import load_clip_tokenizer, load_t5_tokenizer
from engine.sealed import sealed
from engine.training.checkpoint import Place, TrainingState, load_newest, save_state
from engine.training.faults import read_skips
from engine.training.png import save_png
from engine.training.products import read_products, write_products
from engine.training.record import PictureMark, Record, load_record, save_record
from engine.training.trackers import wandb_id
from profiles import recipes, starters, tiers
from profiles.measured import Measured, Measurement, arithmetic
from profiles.recipes import read_recipe
from profiles.schema import Machine
from profiles.tiers import read_tier
from tui.thumbnails import Thumbnails
from tui.widgets.picture import load_picture

Make = Callable[[Path, int], Path]
"""Makes a good file in an empty folder; another number makes another one of the kind."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        modules: those of the product that read it.
        make, read: see above; ``read`` gives values that compare with ``==``.
        promise: what becomes of damage to it, in words.
        accepts: whether a value other than the good one may be read (the good value comes first).
        bound: whether a file of the kind in another's place is noticed.
        lines: whether each line stands for itself, so that lines of another file are not noticed.
        costly: whether reading it takes so long that fewer damages are tried.
    """

    name: str
    modules: tuple[str, ...]
    make: Make
    read: Callable[[Path], Any]
    promise: str
    accepts: Callable[[Any, Any], bool] = lambda good, found: False
    bound: bool = False
    lines: bool = False
    costly: bool = False


def _anything(good: Any, found: Any) -> bool:
    """People's files: what is valid stands."""
    return True


def _plain(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, str, str], ...]:
    """Tensors as values that compare bit by bit."""
    return tuple(
        (name, f"{tensor.dtype} {tuple(tensor.shape)}", hashlib.sha256(_bytes(tensor)).hexdigest())
        for name, tensor in sorted(tensors.items())
    )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# A run's folder


def _make_state(name: str) -> Make:
    def make(folder: Path, which: int) -> Path:
        state = TrainingState(
            Place(step=7, epoch=2, index=1, loss_sum=0.125 + which, elapsed_s=1.5),
            {"a.lora_down.weight": _draw(which, 4, 8), "a.lora_up.weight": _draw(which + 1, 6, 4)},
            {"0.exp_avg": _draw(which + 2, 4, 8), "0.step": torch.tensor(3.0)},
            {"groups": [{"lr": 0.1 + which}]},
            {"base model": "abc"},
        )
        return save_state(folder, state, keep=2) / name

    return make


def _read_state(path: Path) -> Any:
    state, damaged = load_newest(path.parent.parent)
    assert state is not None and not damaged  # there is one alone: it is read or refused
    return state.place, _plain(state.lora), _plain(state.optimizer), state.optimizer_json, state.identity


def make_captions(folder: Path, which: int) -> Path:
    history = CaptionHistory(folder / "captions.jsonl")
    for epoch, texts in enumerate(({"/a.png": f"a cat {which}", "/b.png": "a dog"}, {}, {"/a.png": "é 4"}, {}), 1):
        history.record(epoch, texts)
    return folder / "captions.jsonl"


def _read_captions(path: Path) -> Any:
    history = load_history(path)
    return history.epochs, history.damaged > 0


def _first_epochs(good: Any, found: Any) -> bool:
    """Epochs from the first on, as they were; that later ones are missing is seen from the state's epoch."""
    kept = dict(list(good[0].items())[: len(found[0])])
    return bool(found[0] == kept and (found[1] or len(kept) < len(good[0])))


def _make_events(folder: Path, which: int) -> Path:
    log = EventLog(folder / "events.jsonl", clock=lambda: 1.5 + which)
    for step in range(1, 7):
        log.append(StepDone(step, 1, 0.5 / step + which, 1e-4, 0.25, 1.0, 0.1, 0.8, 0.1))
    log.append(Log("warning", "a word — of it"))
    log.append(EpochDone(1, 6, 0.25))
    log.close()
    return folder / "events.jsonl"


def _some_of(good: Any, found: Any) -> bool:
    """Whole lines in their order: what is damaged is left out."""
    rest = iter(good)
    return all(each in rest for each in found)


def _make_config(folder: Path, which: int) -> Path:
    (folder / "data").mkdir()
    save_config(pocket_config(folder, seed=11 + which), folder / "config.toml")
    return folder / "config.toml"


def _make_taken(folder: Path, which: int) -> Path:
    rungs = [Taken(3 + which, "blocks_to_swap", "0", "14"), Taken(9, "micro_batch", "4", "2")]
    write_taken(folder / "memory.json", rungs)
    return folder / "memory.json"


def _read_taken(path: Path) -> Any:
    taken, wrong = read_taken(path)
    return DETECTED if wrong else taken


def _make_tracking(folder: Path, which: int) -> Path:
    (folder / "known").write_text(wandb_id(folder))
    return folder / "tracking.json"


def _read_tracking(path: Path) -> Any:
    found = wandb_id(path.parent)
    return found if (path.parent / "known").read_text() == found else DETECTED


LINEARS = [f"double_blocks.{block}.img_attn.qkv" for block in range(4)]


def _make_products(folder: Path, which: int) -> Path:
    write_products(folder / "products.json", "int8", {name: (bool(which), True) for name in LINEARS})
    return folder / "products.json"


def _read_products(path: Path) -> Any:
    decided, wrong = read_products(path, "int8", LINEARS)
    return DETECTED if wrong else decided


def _make_faults(folder: Path, which: int) -> Path:
    path = folder / "faults.jsonl"
    lines = [{"step": step + which, "epoch": 1, "action": "skipped", "cause": "latents"} for step in (3, 7, 9)]
    path.write_text("".join(sealed(json.dumps(line)) + "\n" for line in lines))
    return path


def _make_record(folder: Path, which: int) -> Path:
    mark = PictureMark("ab" * 32, (which, 2, 3), 1, False)
    made = Record({"name": "cat"}, {"t5": ("t5.safetensors", "cd")}, {"1/a.png": mark}, {"torch": str(which)})
    digest = save_record(folder, made)
    (folder / "named").write_text(digest)
    return folder / f"{digest[:16]}.json"


def _read_record(path: Path) -> Any:
    found = load_record(path.parent, (path.parent / "named").read_text())
    return DETECTED if found is None else found


def _make_lock(folder: Path, which: int) -> Path:
    with lock_folder(RunFolder(folder)):
        return RunFolder(folder).lock


def _read_lock(path: Path) -> Any:
    found = holder_in(path)
    return DETECTED if found == Holder(0) else found


def _make_lora(layout: Any) -> Make:
    def make(folder: Path, which: int) -> Path:
        targets = [Target(f"single_blocks.{n}.linear2", "single_out", 40, 8, 4, 3.0) for n in (0, 1)]
        state = {f"{t.name}.lora_down.weight": _draw(which + n, 4, 40) for n, t in enumerate(targets)}
        state |= {f"{t.name}.lora_up.weight": _draw(which - n, 8, 4) for n, t in enumerate(targets)}
        said = {"ss_network_dim": "4", "modelspec.implementation_version": "lorakiln 0.1"}
        save_lora(folder / "cat.safetensors", state, targets, layout, "float32", said)
        return folder / "cat.safetensors"

    return make


def _read_lora(path: Path) -> Any:
    state, targets = load_lora(path)
    return _plain(state), targets


def _make_sample(folder: Path, which: int) -> Path:
    pixels = np.random.default_rng(which).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    save_png(folder / "s.png", pixels, {"prompt": "a cat", "seed": 3})
    return folder / "s.png"


def _read_sample(path: Path) -> Any:
    cells = load_picture(path, 20, 10)
    return DETECTED if cells.problem else cells


# Caches

KEY = content_key(of="a test")


def _make_entry(**shapes: tuple[int, ...]) -> Make:
    def make(folder: Path, which: int) -> Path:
        # Another entry has another key, so it is brought to this one's place only by accident.
        key = KEY if not which else content_key(of=f"another {which}")
        Store(folder).put(key, {name: _draw(which, *shape) for name, shape in shapes.items()})
        return Store(folder).path(key)

    return make


def _read_entry(path: Path) -> Any:
    store = Store(path.parent.parent)
    entry = store.get(path.stem)
    return _plain(entry) if entry is not None else DETECTED if store.damaged else None


def _packed(folder: Path) -> Any:
    if not (folder / "m.safetensors").exists():
        _make_base(folder, 0)
    return load_base(folder / "m.safetensors", device="cpu", dtype=torch.bfloat16, precision="int8").blocks


def _make_copy(folder: Path, which: int) -> Path:
    blocks = _packed(folder)
    with CopyWriter(folder / "copy.safetensors", copy_format(blocks, f"{which:064}")) as writer:
        for number, weights in enumerate(blocks):
            writer.add(number, weights)
    assert not writer.failure
    return folder / "copy.safetensors"


def _read_copy(path: Path) -> Any:
    blocks = [block_tensors(weights) for weights in _blocks(path.parent)]
    try:
        reader = CopyReader(path, copy_format(_blocks(path.parent), f"{0:064}"))
    except DamagedCopy:
        return DETECTED
    try:
        for number, into in enumerate(blocks):
            reader.read(number, into)
    except DamagedCopy:
        return DETECTED
    finally:
        reader.close()
    return [_plain(tensors) for tensors in blocks]


_known_blocks: dict[Path, Any] = {}


def _blocks(folder: Path) -> Any:
    if folder not in _known_blocks:
        _known_blocks[folder] = _packed(folder)
    return _known_blocks[folder]


class _Decoder:
    def __init__(self, which: int) -> None:
        self.which = which

    def thumbnail(self, path: Path, side: int) -> Any:
        return np.random.default_rng(self.which).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def _make_thumbnail(folder: Path, which: int) -> Path:
    picture = folder / "picture.png"
    picture.write_bytes(b"any")
    os.utime(picture, (1, 1))
    thumbnails = Thumbnails(_Decoder(which), folder / "small")  # type: ignore[arg-type]
    thumbnails.load(picture)
    thumbnails.close()
    (made,) = (folder / "small").iterdir()
    return made


def _read_thumbnail(path: Path) -> Any:
    thumbnails = Thumbnails(_Decoder(99), path.parent)  # type: ignore[arg-type]
    found = thumbnails.load(path.parent.parent / "picture.png").pixels
    thumbnails.close()
    assert found is not None
    made_anew = _Decoder(99).thumbnail(path, 0)
    return DETECTED if np.array_equal(found, made_anew) else found.tobytes()


# The user's state

MACHINE = Machine(card_named("RTX 4090"), 23.0, 64.0, 50.0, 16, 500.0, 500.0)


def _make_measured(folder: Path, which: int) -> Path:
    made = Measurement("int8", "8bit", "full", False, 14.5 + which, 14.0, 0.5, 0.5, 2.5, 2.0)
    Measured(folder).add(MACHINE, replace(made, arithmetic=arithmetic()))
    Measured(folder).add(MACHINE, replace(made, arithmetic=arithmetic(), step_s=3.5))
    return Measured(folder).path(MACHINE)


def _read_measured(path: Path) -> Any:
    measured = Measured(path.parent)
    found = [asdict(each) for each in measured._read(path)]
    return DETECTED if measured.remarks else found


# People's files, and other people's


def _copied(source: Path, other: str = "# another\n") -> Make:
    def make(folder: Path, which: int) -> Path:
        path = folder / source.name
        path.write_bytes(source.read_bytes() + (other.encode() if which else b""))
        return path

    return make


def _read_package_file(name: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        before = starters.FOLDER
        starters.FOLDER = path.parent
        try:
            return starters.demo_config(path.parent) if name == "demo" else starters.starter(name, "cat")
        finally:
            starters.FOLDER = before

    return read


def _tokenizer(name: str) -> Make:
    def make(folder: Path, which: int) -> Path:
        for source in (FILES / Path(name).parent).iterdir():
            (folder / source.name).write_bytes(source.read_bytes() + (b"\n" if which else b""))
        return folder / Path(name).name

    return make


def _read_clip(path: Path) -> Any:
    return load_clip_tokenizer(FILES / "clip-pocket.safetensors", path.parent).fingerprint


def _read_t5(path: Path) -> Any:
    return load_t5_tokenizer(FILES / "t5-pocket.safetensors", path.parent).fingerprint


def _make_scorer(name: str) -> Make:
    def make(folder: Path, which: int) -> Path:
        (folder / "model.safetensors").touch()
        table = {"model_type": "clip", "projection_dim": 64 + which, "vision_config": {"image_size": 64}}
        look = {"size": {"shortest_edge": 80 + which}, "crop_size": 64, "image_mean": [0.5, 0.4, 0.3]}
        for file, values in (("config.json", table), ("preprocessor_config.json", look)):
            (folder / file).write_text(json.dumps(values))
        return folder / name

    return make


TINY = FluxParams(
    in_channels=64, vec_in_dim=8, context_in_dim=16, hidden_size=32, num_heads=1, depth=1, depth_single_blocks=1,
    axes_dim=(8, 12, 12),
)  # fmt: skip


def _make_base(folder: Path, which: int) -> Path:
    tensors = {name: 1 + _draw(which + n, *shape) / 20 for n, (name, shape) in enumerate(layout(TINY).items())}
    save_file(tensors, folder / "m.safetensors", {"params": json.dumps(TINY.to_dict())})
    return folder / "m.safetensors"


def _read_base(path: Path) -> Any:
    header._FINGERPRINTS.clear()
    base = load_base(path, device="cpu", dtype=torch.float32, precision="bf16")
    return header.file_fingerprint(path), [_plain(block_tensors(weights)) for weights in base.blocks]


def _another_base(good: Any, found: Any) -> bool:
    """Numbers without a checksum: another fingerprint, by which resuming refuses it and nothing cached is used."""
    return bool(good[0] != found[0])


def _toml(path: Path) -> Path:
    return sorted(path.glob("*.toml"))[0]


SEALED = "noticed by its checksum"
PEOPLE = "people's own: what is no longer valid is refused with its line, a valid value stands"

KINDS: tuple[Kind, ...] = (
    *(
        Kind(f"training state, {name}", ("engine.training.checkpoint", "engine.training.generations"),
             _make_state(name), _read_state, "passed over for an older one, or the resume refused",
             bound=name != "MANIFEST.json")
        for name in ("lora.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")
    ),
    Kind("captions.jsonl", ("engine.dataset.history",), make_captions, _read_captions,
         "cut at the first damaged line, and said", _first_epochs, lines=True),
    Kind("steps to undo", ("engine.dataset.past",), make_past_file, read_past_file, "fewer, and no other texts",
         lambda good, found: set(found) <= {*good, "a dog"}, lines=True),
    Kind("word list", ("engine.dataset.spelling",), make_words_file, read_words, PEOPLE, _anything),
    Kind("faults.jsonl", ("engine.training.faults",), _make_faults, read_skips, "the damaged line is left out",
         _some_of, lines=True),
    Kind("record of a state", ("engine.training.record",), _make_record, _read_record,
         "not believed: told as unknown"),
    Kind("events.jsonl", ("engine.events", "tui.elsewhere"), _make_events,
         lambda path: [entry.to_json() for entry in replay(path)], "the damaged line is left out", _some_of,
         lines=True),
    Kind("config.toml", ("engine.config_file",), _make_config, load_config, PEOPLE, _anything),
    Kind("memory.json", ("engine.memory.rungs",), _make_taken, _read_taken, SEALED),
    Kind("products.json", ("engine.training.products",), _make_products, _read_products, SEALED),
    Kind("tracking.json", ("engine.training.trackers",), _make_tracking, _read_tracking, "another id is taken"),
    Kind("run.lock", ("engine.locks",), _make_lock, _read_lock, "the holder counts as unnamed"),
    Kind("LoRA, kohya", ("engine.lora.formats", "engine.models.header"), _make_lora("kohya"), _read_lora,
         "refused: header read strictly, numbers by their hash"),
    Kind("LoRA, diffusers", ("engine.lora.formats", "engine.models.header"), _make_lora("diffusers"), _read_lora,
         "refused: header read strictly, numbers by their hash"),
    Kind("sample picture", ("tui.widgets.picture",), _make_sample, _read_sample, "said in its place"),
    Kind("cache entry, latents", ("engine.cache.store",), _make_entry(mean=(4, 8), std=(4, 8)), _read_entry,
         "removed and made again", bound=True),
    Kind("cache entry, text", ("engine.cache.store",), _make_entry(states=(5, 16), pooled=(8,)), _read_entry,
         "removed and made again", bound=True),
    Kind("packed base copy", ("engine.memory.packed_copy",), _make_copy, _read_copy, "written anew", bound=True,
         costly=True),
    Kind("thumbnail", ("tui.thumbnails",), _make_thumbnail, _read_thumbnail, "made again"),
    Kind("measures of pictures", ("engine.dataset.quality_store",), make_quality_file, read_quality_file,
         "measured again", costly=True),
    Kind("measured runs", ("profiles.measured",), _make_measured, _read_measured, "set aside, and said"),
    Kind("session", ("tui.session",), make_session_file, read_session_file, "set aside"),
    Kind("opinions on epochs", ("tui.judged",), make_judged_file, read_judged_file, "set aside"),
    Kind("host's note", ("tui.terminal.place",), make_note_file, read_note_file, "not believed"),
    Kind("sweep's manifest", ("tui.sweep_file",), make_sweep_file, read_sweep_file, PEOPLE, _anything),
    Kind("settings", ("tui.settings",), make_settings_file, read_settings_file, PEOPLE, _anything),
    Kind("theme", ("tui.themes",), make_theme_file, read_themes_file, PEOPLE, _anything),
    Kind("tier", ("profiles.tiers",), _copied(_toml(Path(tiers.__file__).parent / "tiers")), read_tier, PEOPLE,
         _anything),
    Kind("recipe", ("profiles.recipes",), _copied(_toml(Path(recipes.__file__).parent / "recipes")), read_recipe,
         PEOPLE, _anything),
    Kind("starter", ("profiles.starters", "profiles.presets"), _copied(starters.FOLDER / "flux_dev.toml"),
         _read_package_file("flux_dev"), "a part of the program", _anything),
    Kind("dataset's notes", ("engine.dataset.sidecar",), make_sidecar, lambda path: load_sidecar(path.parent),
         PEOPLE, _anything),
    Kind("caption", ("engine.dataset.captions", "engine.dataset.edits"), make_caption, read_caption, PEOPLE,
         _anything),
    Kind("machine's caption", ("engine.captioners.drafts",), machine.make_draft, machine.load_draft, "made anew"),
    Kind("tagger's tags", ("engine.captioners.tags",), machine.make_tags, machine.read_tags, PEOPLE, _anything),
    Kind("captioner's config", ("engine.captioners.found",), machine.make_config, machine.kind_of, PEOPLE,
         _anything),
    Kind("undo of captions", ("engine.dataset.journal",), make_journal, read_journal,
         "the damaged line is left out", _some_of, lines=True),
    Kind("undo of mendings", ("engine.dataset.mend_journal", "engine.dataset.step_file"), make_mend_journal,
         read_mend_journal, "the damaged line is left out", _some_of, lines=True),
    Kind("CLIP vocabulary", ("engine.models.tokenizers",), _tokenizer("tokenizer/vocab.json"), _read_clip,
         "others' file: refused, or another tokenizer", _anything),
    Kind("CLIP merges", ("engine.models.tokenizers",), _tokenizer("tokenizer/merges.txt"), _read_clip,
         "others' file: refused, or another tokenizer", _anything),
    Kind("T5 tokenizer", ("engine.models.tokenizers", "engine.models.tokenizer_files"),
         _tokenizer("tokenizer_2/tokenizer.json"), _read_t5, "others' file: refused, or another tokenizer",
         _anything),
    Kind("scoring model's sizes", ("engine.models.scorer_files",), _make_scorer("config.json"),
         lambda path: replace(clip_files(path.parent), weights=Path()), "others' file: refused, or other sizes",
         _anything),
    Kind("scoring model's pictures", ("engine.models.scorer_files",), _make_scorer("preprocessor_config.json"),
         lambda path: clip_files(path.parent).look, "others' file: refused, or another way of looking", _anything),
    Kind("base model", ("engine.models.weights", "engine.models.header"), _make_base, _read_base,
         "others' file: refused, or another model by its fingerprint", _another_base, costly=True),
)  # fmt: skip


def damages(
    data: bytes, other: bytes, rng: random.Random, flips: int | None, cuts: int
) -> Iterable[tuple[str, bytes]]:
    """Damaged copies of a file, each with what was done to it.

    Args:
        other: another file of the kind; nothing where parts of it may be believed.
        flips: bits flipped, one at a time: in the first bytes, then anywhere; None for one in every byte of a small
            file, and in 2,000 places and the first 4,096 bytes of a large one.
        cuts: how many lengths it is cut to.
    """
    size = len(data)
    if flips is None:
        small = size <= 65_536
        places = range(size) if small else [*range(4096), *(rng.randrange(size) for _ in range(2000))]
    else:
        places = [*range(min(size, flips // 4)), *(rng.randrange(size) for _ in range(flips - flips // 4))]
    for at in places:
        yield f"bit flipped in byte {at}", data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    for number in range(cuts):
        at = size * number // cuts
        yield f"cut to {at} of {size} bytes", data[:at]
    for at in range(0, size, 4096) if flips is None and size < 2**20 else (0, size // 2 // 4096 * 4096):
        page = data[at : at + 4096]
        yield f"page at {at} zeroed", data[:at] + bytes(len(page)) + data[at + 4096 :]
    yield "garbage appended", data + bytes(rng.randrange(256) for _ in range(32))
    yield "all zero", bytes(size)
    if other:
        yield "doubled", data + data
        yield "first half of another", other[: size // 2] + data[size // 2 :]
