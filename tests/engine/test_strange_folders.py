"""Names and folders from strangers: what is written lies where it belongs, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket import finish, pocket_config

from engine.config_file import save_config
from engine.errors import RunError
from engine.events import EventLog, Log, last_entry, replay
from engine.files import RunFolder, atomic_write, create_run_folder, is_held, next_run_folder, slug
from engine.locks import lock_folder
from engine.run import Run, open_run
from tui.elsewhere import Watch, holder_of
from tui.run_list import list_runs

NAMES = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "", "~root", "$(id)", "a/../../b", "a\0b", "-rf", "con", "a\nb",
    "\x1b]0;t\x07", "\u202egpj", "x" * 300, ".ssh", "a/", "C:\\x", "run.lock", "état",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_runs_folder_is_new_and_lies_in_the_folder_of_runs(name: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    told = next_run_folder(runs, name)
    first, second = create_run_folder(runs, name), create_run_folder(runs, name)
    assert first.root == told and first.root != second.root
    for folder in (first, second):
        assert folder.root.parent == runs and os.path.realpath(folder.root) == str(runs.resolve() / folder.name)
        for path in (folder.lora(1, 2, "epoch"), folder.lora(1, 2, "final", "diffusers"), folder.samples):
            assert path.parent == folder.root
    assert sorted(os.listdir(tmp_path)) == ["runs"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_a_slug_never_leads_out(name: str) -> None:
    made = slug(name)
    assert Path(os.path.normpath(Path("/runs") / made)).parent == Path("/runs") and not made.startswith((".", "-"))
    assert len(made.encode()) <= 80


def test_a_link_in_the_place_of_a_new_run_is_passed_over(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/a").symlink_to(outside)
    (tmp_path / "runs/a-2").symlink_to(tmp_path / "nowhere")
    assert create_run_folder(tmp_path / "runs", "a").name == "a-3"
    assert os.listdir(outside) == [] and not (tmp_path / "nowhere").exists()


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "a.safetensors").symlink_to(outside)
    atomic_write(tmp_path / "a.safetensors", "new")
    assert outside.read_text() == "mine" and (tmp_path / "a.safetensors").read_text() == "new"


PARTS = (
    "config.toml", "events.jsonl", "captions.jsonl", "log.txt", "products.json", "memory.json", "run.lock", "samples",
    "state",
)  # fmt: skip


def folder_of_a_stranger(tmp_path: Path) -> RunFolder:
    """A run's folder as it would be sent: a configuration, events, and the rest empty."""
    folder = create_run_folder(tmp_path / "runs", "test")
    save_config(pocket_config(tmp_path), folder.config)
    for path in (folder.events, folder.captions, folder.log, folder.products, folder.memory, folder.lock):
        path.touch()
    return folder


def test_a_run_is_not_gone_on_with_where_a_part_leads_out_of_its_folder(tmp_path: Path) -> None:
    folder = folder_of_a_stranger(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    for part in PARTS:
        path, kept = folder.root / part, tmp_path / "kept"
        if path.exists():
            path.rename(kept)
        victim.write_text("mine, a whole text that must stay")
        path.symlink_to(outside if part in ("samples", "state") else victim)
        with pytest.raises(RunError, match=f"{part} is a link"):
            open_run(folder.root)
        with pytest.raises(RunError, match=f"{part} is a link"), lock_folder(folder):
            pass
        resumed = finish(Run(pocket_config(tmp_path), resume_from=folder.root))
        assert resumed.state == "failed"
        assert victim.read_text() == "mine, a whole text that must stay" and os.listdir(outside) == ["victim"], part
        path.unlink()
        if kept.exists():
            kept.rename(path)
    assert open_run(folder.root).folder == folder


@pytest.mark.timeout(60)  # opening a pipe waits for ever
def test_pipes_in_a_run_folder_hold_nobody(tmp_path: Path) -> None:
    root = tmp_path / "runs/a"
    root.mkdir(parents=True)
    folder = RunFolder(root)
    folder.config.write_text("name = 1\n")
    os.mkfifo(folder.events)
    os.mkfifo(folder.lock)
    assert not is_held(folder.lock) and holder_of(folder.lock) == ""
    assert list(Watch(folder).look()) == []
    with pytest.raises(FileNotFoundError):
        list(replay(folder.events))
    with pytest.raises(FileNotFoundError):
        last_entry(folder.events)
    with pytest.raises(RunError, match=r"events\.jsonl: no regular file"):
        list_runs(tmp_path / "runs")
    with pytest.raises(RunError, match="is a link or something else"):
        open_run(root)


def test_an_endless_line_of_events_is_passed_over_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"[" * 10 * 2**20 + b"\n")
    log = EventLog(path)
    log.append(Log("info", "after"))
    log.close()
    assert [entry.event for entry in replay(path)] == [Log("info", "after")]
