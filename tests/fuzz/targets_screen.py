"""Targets that read what terminals, clients, sessions and the user's own files say."""

from __future__ import annotations

import json
import os
import socket
import termios
from pathlib import Path
from types import SimpleNamespace

from engine.config import PROMPT_KINDS
from engine.config_file import parse_config
from engine.dataset.past import Past, open_past, write_news
from engine.errors import ConfigError, RunError
from engine.files import slug
from engine.sealed import sealed
from profiles.measured import FORMAT, Measured
from tests.fuzz.target import Target, as_file, assert_harmless, scratch, text_of
from tui import keymap, places, run_loras
from tui.commands.plan import _setting
from tui.judged import JUDGED_NAME, Judged, Opinion, read_judged, write_judged
from tui.run_list import SWEEP_NAME
from tui.session import load_session, save_session
from tui.settings import Settings, load_settings
from tui.setup import choices, form, prompts
from tui.sweep import axis_of, plan_sweep
from tui.sweep_file import Sweep, SweepRun, read_sweep, write_manifest
from tui.terminal import probe
from tui.terminal.modes import from_plain
from tui.terminal.place import Place, read_info
from tui.terminal.traits import Traits
from tui.terminal.wire import MOST_BYTES, Channel, Hello, Malformed, hello_from
from tui.themes import _read as read_theme

SWEPT = """\
name = "cat"
dataset.folders = [{path = "pictures"}]
[model]
transformer = "flux.safetensors"
autoencoder = "ae.safetensors"
clip_l = "clip.safetensors"
t5 = "t5.safetensors"
"""


def _settings_seeds() -> list[bytes]:
    return [
        b'theme = "dark"\nimages = "off"\nrefresh_hz = 20\nkeys = "vim"\nmodel_folders = ["~/models"]\n',
        b'[keymap]\n"run.pause" = "p,f9"\n', b'[keymap]\nrun.pause = "ctrl+t"\napp.leave = "Q"\n',
    ]  # fmt: skip


def _settings(data: bytes) -> None:
    path = as_file(data, "settings.toml")
    os.environ["LORAKILN_SETTINGS"] = str(path)
    try:
        settings = load_settings()
    finally:
        del os.environ["LORAKILN_SETTINGS"]
    assert isinstance(settings, Settings)
    keymap.effective(settings.keys, settings.keymap)


def _keymap_seeds() -> list[bytes]:
    return [b"run.pause=p,f9", b"caption.trigger=ctrl+g", b"app.help=f24", b"view.log=alt+up"]


def _keymap(data: bytes) -> None:
    name, _, keys = data.decode("utf-8", "replace").partition("=")
    keymap.check_keys(keys)
    keymap.effective("vim", {"run.pause": keys})
    keymap.check_id(name)
    keymap.check_clashes({name: keys})


def _theme(data: bytes) -> None:
    read_theme(as_file(data, "mine.toml"))


def _session_seeds() -> list[bytes]:
    from tui.session import SessionState

    path = scratch() / "seed.json"
    save_session(SessionState(), path)
    draft = {"text": "a", "path": "/a.txt"}
    return [path.read_bytes(), json.dumps({"drafts": {"/a": draft}, "edited": {"/a": 3}, "window": 1}).encode()]


def _session(data: bytes) -> None:
    path = as_file(data, "session.json")
    state = load_session(path)
    save_session(state, path)
    assert load_session(path) == state


def _judged_seeds() -> list[bytes]:
    write_judged(scratch(), Judged({3: Opinion(4, "best", "yes", wins=2, shown=3)}, 3))
    return [(scratch() / JUDGED_NAME).read_bytes(), b'{"chosen": 2, "epochs": {"1": {"stars": 5, "obeys": "no"}}}']


def _judged(data: bytes) -> None:
    path = as_file(data, JUDGED_NAME)
    found = read_judged(path.parent)
    write_judged(path.parent, found)
    assert read_judged(path.parent) == found


def _form_values(data: bytes) -> None:
    """The JSON inside a session's values: the form's own base and choices, the wizard's lengths."""
    from tui.wizard import lengths

    text = text_of(data)
    form.SetupForm._usable(SimpleNamespace(values={form.BASE: text, "preset": form.OWN}))  # type: ignore[arg-type]
    assert isinstance(choices._read({"a": text}, "a"), dict)
    lengths._last({lengths.BAND: text})
    assert all(kind in PROMPT_KINDS for kind in prompts.kinds_of({prompts.KINDS: text}).values())


def _wire_seeds() -> list[bytes]:
    hello = json.dumps({"kind": "hello"} | Hello(traits={"columns": 80}, environment={"TERM": "xterm"}).to_message())
    return [hello.encode() + b"\n", b'{"kind": "resize"}\n{"kind": "detach"}\n', b'{"kind": "end", "code": 1}\n']


def _wire(data: bytes) -> None:
    """A whole conversation, in two portions, until the other end hangs up."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    try:
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            theirs.sendall(part)
        theirs.shutdown(socket.SHUT_WR)
        for _ in range(len(data) + 1):
            message = channel.receive(0.0 if len(data) > MOST_BYTES else 5.0)
            if message is None:
                return
            assert isinstance(message["kind"], str)
            hello = hello_from(message)
            assert all(isinstance(value, str) for value in hello.environment.values())
            Traits.from_dict(hello.traits)
            from_plain(hello.settings)
    finally:
        channel.close()
        theirs.close()


def _modes_seeds() -> list[bytes]:
    return [json.dumps([1, 2, 3, 4, 5, 6, [0] * termios.NCCS]).encode()]


def _modes(data: bytes) -> None:
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return
    settings = from_plain(plain)
    assert settings is None or len(settings) == 7
    if isinstance(plain, dict):
        Traits.from_dict(plain)


def _probe_seeds() -> list[bytes]:
    return [
        b"j\x1b_Gi=4207;OK\x1b\\j\x1b[A\x1b[6;20;10t\xc3\xa9\x1b[?62;4cq", b"\x1b[4;480;800t\x1b[?1c",
        b"\x1b_Gi=4207;ENOTSUP:no\x1b\\\x1b[?62;4;22c", b"\x1b[6;99999;99999t",
    ]  # fmt: skip


def _probe(data: bytes) -> None:
    data = data[: probe.MOST_BYTES]
    width, height = probe._cell_size(data, 80, 24)
    assert 0 <= width <= 200 and 0 <= height <= 200 and (width == 0) == (height == 0)
    assert probe._images(data) in ("", "kitty", "sixel")
    typed = probe.without_answers(data)
    assert len(typed) <= len(data)
    if b"\x1b" not in data:
        assert typed == data, "keys were taken for answers"


def _host_info_seeds() -> list[bytes]:
    return [b'{"pid": 3, "folder": "/a", "version": "0.1.0", "started": 1.5, "run": ""}']


def _host_info(data: bytes) -> None:
    info = read_info(Place(as_file(data, "host.json").with_suffix("")))
    assert info is None or (type(info.pid) is int and type(info.folder) is str)


def _setting_of(data: bytes) -> None:
    import argparse

    try:
        key, _ = _setting(text_of(data))
    except argparse.ArgumentTypeError as err:
        assert_harmless(str(err))
    else:
        assert isinstance(key, str)


def _epochs(data: bytes) -> None:
    import argparse

    try:
        spans = run_loras.epochs(text_of(data))
    except argparse.ArgumentTypeError as err:
        assert_harmless(str(err))
    else:
        assert all(0 < first <= last < 10**6 for first, last in spans)


def _axis(data: bytes) -> None:
    """Values of a sweep, and the names that runs get of them."""
    axis = axis_of(text_of(data))
    config = parse_config(SWEPT)
    names = [run.name for run in plan_sweep(config, [axis], Path("/runs/a"))]
    assert len(set(names)) == len(names) and all(slug(name) == name for name in names)


def _manifest(data: bytes) -> None:
    path = as_file(data, SWEEP_NAME)
    sweep = read_sweep(path.parent)
    write_manifest(sweep)
    assert read_sweep(path.parent) == sweep


def _manifest_seeds() -> list[bytes]:
    write_manifest(Sweep(scratch(), (SweepRun(name="cat-r8", state="failed"), SweepRun(name="cat-r16", own="é"))))
    return [(scratch() / SWEEP_NAME).read_bytes(), b'[[runs]]\nname = "a"\n']


def _places(data: bytes) -> None:
    """Names of files that an event tells: never outside the folder that the user named."""
    for found in (places.lora_in(Path("/runs/a"), text_of(data)), places.sample_in(Path("/runs/a"), text_of(data))):
        assert Path(os.path.normpath(found)).is_relative_to("/runs/a") and "\0" not in str(found)


def _measured(data: bytes) -> None:
    folder = scratch() / "measured"
    folder.mkdir(exist_ok=True)
    store = Measured(folder)
    store._read(as_file(data, "measured/a.json"))
    assert_harmless(*store.remarks)


def _measured_seeds() -> list[bytes]:
    return [json.dumps({"format": FORMAT, "measurements": []}).encode()]


def _past(data: bytes) -> None:
    path = as_file(data, "past.jsonl")
    past = open_past(path, "now", "began")
    while past.undo():
        pass
    while past.redo():
        pass
    assert past.text == "now", "the way back leads elsewhere"
    write_news(path, past.news())
    again = open_past(path, "now", "began")
    assert len(again) == len(past) and again.text == "now", "what is written reads back as something else"


def _past_seeds() -> list[bytes]:
    past = Past("a \u00e9")
    for text in ("a cat", "", "two\nlines"):
        past.take(text)
    past.undo()
    lines = [sealed(json.dumps(line)) for line in past.news()]
    return ["\n".join([*lines, ""]).encode(), "\n".join(json.dumps(json.loads(line)) for line in lines).encode()]


TARGETS = (
    Target("caption-past", _past, (), _past_seeds, ("engine.dataset.past.open_past",)),
    Target("settings", _settings, (ConfigError,), _settings_seeds, ("tui.settings.load_settings",)),
    Target(
        "keymap", _keymap, (ValueError,), _keymap_seeds,
        ("tui.keymap.check_keys", "tui.keymap.check_id", "tui.keymap.check_clashes", "tui.keymap.effective"),
    ),
    Target(
        "theme", _theme, (ConfigError,), lambda: [b'base = "dark"\naccent = "#ff8800"\nbackground = "#202428"\n'],
        ("tui.themes._read",),
    ),
    Target("judged", _judged, (), _judged_seeds, ("tui.judged.read_judged",)),
    Target("session", _session, (), _session_seeds, ("tui.session.load_session",)),
    Target(
        "form-values", _form_values, (), lambda: [b"{}", b'{"dataset": {"folders": []}}', b'{"a": 1}'],
        ("tui.setup.choices._read", "tui.setup.form.SetupForm._usable", "tui.setup.prompts.kinds_of",
         "tui.wizard.lengths._last"),
        (b"[" * 100_000,),
    ),
    Target(
        "wire", _wire, (Malformed, EOFError), _wire_seeds,
        ("tui.terminal.wire.Channel.receive", "tui.terminal.wire.hello_from", "tui.terminal.traits.Traits.from_dict"),
    ),
    Target("modes", _modes, (), _modes_seeds, ("tui.terminal.modes.from_plain",)),
    Target(
        "probe", _probe, (), _probe_seeds,
        ("tui.terminal.probe.without_answers", "tui.terminal.probe._cell_size", "tui.terminal.probe._images"),
    ),
    Target("host-info", _host_info, (), _host_info_seeds, ("tui.terminal.place.read_info",)),
    Target(
        "plan-setting", _setting_of, (), lambda: [b"lora.rank=8", b'name="a"', b"x"], ("tui.commands.plan._setting",),
        (b"a=" + b"9" * 5000, b"a=" + b"[" * 100_000),
    ),
    Target(
        "epochs", _epochs, (), lambda: [b"20-27", b"5,8,20-27", b"3-2"], ("tui.run_loras.epochs",), (b"9" * 5000,)
    ),
    Target(
        "sweep-values", _axis, (ConfigError,), lambda: [b"lora.rank=8,16", b"optimizer.name=adamw,lion", b'name="a"'],
        ("tui.sweep.axis_of",), (b"seed=" + b"9" * 5000, b"seed=" + b"[" * 100_000),
    ),
    Target("sweep", _manifest, (ConfigError, RunError), _manifest_seeds, ("tui.sweep_file.read_sweep",)),
    Target("event-paths", _places, (), lambda: [b"/runs/a/a.safetensors", b"../x", b".."], ("tui.places.lora_in",)),
    Target("measured", _measured, (), _measured_seeds, ("profiles.measured.Measured._read",)),
)  # fmt: skip
