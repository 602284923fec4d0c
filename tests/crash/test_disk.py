"""The disk refuses at every single moment of a short run: nothing that stood is harmed, the end has the same bits.

A run is made with an error of the system in the way of its n-th write, flush, rename, removal or new folder, for
every n. It holds or ends with a clear error; with the error gone it goes on, by itself, by key or by ``kiln resume``,
to the weights that a run on a good disk has.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pocket import finish, pocket_config, told
from reliability import figure
from safetensors.torch import load_file
from seams import Seams

import engine.training.patience as patience
from engine.cache.store import Store, content_key
from engine.config_file import save_config
from engine.dataset.edits import open_caption, write_caption
from engine.errors import DiskError
from engine.events import Log, RunFailed, StepDone, replay
from engine.memory.rungs import Taken, write_taken
from engine.run import Run, open_run
from engine.training.checkpoint import Place, TrainingState, generations, load_newest, save_state
from engine.training.products import write_products
from engine.training.room import sweep_folder

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT)


class Fault:
    """Refuses the moments that ``picks`` says, with ``code``; counts."""

    def __init__(self, picks: Callable[[int], bool], code: int) -> None:
        self.picks, self.code, self.count = picks, code, 0

    def __call__(self, number: int, what: str, path: str) -> None:
        if self.picks(number):
            self.count += 1
            raise OSError(self.code, os.strerror(self.code), path)


def settings(home: Path, runs: Path) -> Any:
    """Four steps with a state after each, a LoRA after each epoch, a picture at the end."""
    return pocket_config(
        home,
        runs_dir=runs,
        dataset={"folders": [{"path": home / "data"}]},
        training={"epochs": 2, "accumulation": 3, "state_every_steps": 1},
        sampling={"prompts": [{"prompt": "a zorple"}], "every_epochs": 2, "at_start": False},
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset and cache of all runs."""
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def expected(home: Path) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The weights of a run on a good disk, and the moments that are worth a refusal.

    Of the pieces in which one file is written the first and the last are: those between differ in nothing.
    """
    finish(Run(settings(home, home / "first")))  # the caches are full from here on
    seen: list[tuple[str, str]] = []
    with Seams([home / "good"], lambda number, what, path: seen.append((what, path))):
        run = finish(Run(settings(home, home / "good")))
    beyond = [*seen[1:], ("", "")]
    worth = [
        n for n, (one, after) in enumerate(zip(seen, beyond, strict=True), 1) if one[0] != "write" or one != after
    ]
    worth += [n + 1 for n in worth if n < len(seen) and seen[n][0] == "write"]
    return load_file(run.folder.lora(0, 0, "final")), sorted(set(worth))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A held run tries again at once."""
    monkeypatch.setattr(patience, "RETRY_S", 0.02)


def check_whole(folder: Path) -> None:
    """Every state that looks whole verifies, and so does every LoRA file."""
    for generation in generations(folder / "state"):
        assert load_newest(generation.parent)[1] == []
    for path in folder.glob("*.safetensors"):
        assert load_file(path)


def check_end(run: Run, wanted: dict[str, torch.Tensor]) -> None:
    """The run has finished with these weights, each step told once in the end, and left nothing half-written."""
    assert run.exit_reason == "finished", told(run, RunFailed)
    ours = load_file(run.folder.lora(0, 0, "final"))
    assert ours.keys() == wanted.keys() and all(torch.equal(ours[name], wanted[name]) for name in ours)
    left = [path.name for path in run.folder.root.rglob("*") if path.name.endswith((".part", ".old"))]
    assert left == []
    assert len(list(run.folder.samples.glob("*.png"))) == 1
    steps = [entry.event.step for entry in replay(run.folder.events) if isinstance(entry.event, StepDone)]
    assert sorted(set(steps)) == list(range(1, 5))


def run_with(fault: Fault, config: Any, wanted: dict[str, torch.Tensor]) -> str:
    """A run with the fault in its way, then without: "held" where it went on by itself, else "resumed"."""
    run = Run(config)
    with Seams([config.runs_dir], fault):
        finish(run)
    if run.exit_reason == "finished":
        check_end(run, wanted)
        return "held"
    [failure] = told(run, RunFailed)
    assert not failure.title.startswith("Unexpected") and "Traceback" not in failure.detail, failure
    folder = run.folder
    if folder is not None and folder.config.exists():
        check_whole(folder.root)
        again = finish(open_run(folder.root))
    else:
        again = finish(Run(config))
    check_end(again, wanted)
    return "resumed"


@pytest.mark.parametrize(
    ("code", "every"),
    [(errno.ENOSPC, 60)] + [pytest.param(code, 1, marks=pytest.mark.crash) for code in CODES],
)
@pytest.mark.timeout(3600)
def test_one_refusal_at_any_moment_costs_nothing(home, expected, tmp_path, capfd, code, every):
    wanted, worth = expected
    ends = []
    for number in worth[every // 2 :: every]:
        runs = tmp_path / f"runs{number}"
        ends.append(run_with(Fault(lambda n, number=number: n == number, code), settings(home, runs), wanted))
        shutil.rmtree(runs)
    assert "Traceback" not in capfd.readouterr().err
    figure("disk", f"{errno.errorcode[code]} at one moment, same bits in the end", f"{len(ends)} of {len(ends)} runs")


@pytest.mark.parametrize(
    ("code", "apart"),
    [(errno.EIO, 151)]
    + [pytest.param(code, apart, marks=pytest.mark.crash) for code in CODES for apart in (139, 167, 211)],
)
@pytest.mark.timeout(600)
def test_a_disk_that_refuses_again_and_again_costs_nothing(home, expected, tmp_path, capfd, code, apart):
    """Every so many moments one is refused, more than a save has: retries are refused, too, and later saves."""
    fault = Fault(lambda n: n % apart == 0, code)
    run_with(fault, settings(home, tmp_path / "runs"), expected[0])
    assert fault.count >= 3 and "Traceback" not in capfd.readouterr().err
    figure("disk", f"{errno.errorcode[code]} at every {apart}th moment, same bits", f"{fault.count} refusals")


@pytest.mark.parametrize(
    ("code", "every"),
    [(errno.ENOSPC, 110)] + [pytest.param(code, 5, marks=pytest.mark.crash) for code in (errno.ENOSPC, errno.EIO)],
)
@pytest.mark.timeout(3600)
def test_a_disk_that_stays_bad_for_a_while_costs_nothing(home, expected, tmp_path, capfd, code, every):
    wanted, worth = expected
    for number in worth[every // 2 : -10 : every]:
        bad = threading.Event()
        bad.set()
        fault = Fault(lambda n, number=number, bad=bad: n >= number and bad.is_set(), code)
        config = settings(home, tmp_path / f"runs{number}")
        run = Run(config)
        with Seams([config.runs_dir], fault):
            run.start()
            end = time.monotonic() + 60
            while run.alive and run.state != "paused" and not (fault.count and run.state == "finished"):
                assert time.monotonic() < end
                time.sleep(0.005)
            bad.clear()
            assert run.join(120)
        if run.exit_reason != "finished":
            run = finish(open_run(run.folder.root) if run.folder and run.folder.config.exists() else Run(config))
        if any(entry.text.startswith("Temporary files could not be removed") for entry in told(run, Log)):
            sweep_folder(run.folder)  # a disk that was bad to the very end: what it kept was told by name
        check_end(run, wanted)
    assert "Traceback" not in capfd.readouterr().err


def small_state(step: int) -> TrainingState:
    return TrainingState(Place(step=step), {"a": torch.full((40, 40), float(step))}, {}, {"x": step}, {"base": "b"})


STATE_CODES = [errno.ENOSPC] + [pytest.param(code, marks=pytest.mark.crash) for code in CODES[1:]]


@pytest.mark.parametrize("code", STATE_CODES)
def test_a_refusal_at_any_moment_of_saving_a_state_leaves_the_older_ones(tmp_path, code):
    number, done, cases = 0, False, 0
    while not done:
        number += 1
        states = tmp_path / str(number)
        save_state(states, small_state(1), keep=2)
        save_state(states, small_state(2), keep=2)
        with Seams([states], Fault(lambda n, number=number: n == number, code)) as seams:
            try:
                save_state(states, small_state(3), keep=2)
            except DiskError:
                cases += 1
        done = seams.count < number
        found, damaged = load_newest(states)
        assert damaged == [] and found.place.step in (2, 3)
        assert float(found.lora["a"][0, 0]) == found.place.step
        save_state(states, small_state(3), keep=2)
        assert load_newest(states)[0].place.step == 3 and len(generations(states)) == 2
    assert cases > 15


@pytest.mark.parametrize("code", STATE_CODES)
def test_a_refusal_while_a_state_is_written_again_keeps_one_of_the_two(tmp_path, code):
    """The one that stood is moved aside, and moved back where the new one cannot take its place."""
    number, done = 0, False
    while not done:
        number += 1
        states = tmp_path / str(number)
        save_state(states, small_state(3), keep=2)
        with Seams([states], Fault(lambda n, number=number: n == number, code)) as seams:
            try:
                save_state(states, small_state(3), keep=2)
            except DiskError:
                assert load_newest(states)[0] is not None
        done = seams.count < number
        assert load_newest(states)[0].place.step == 3


def old_or_new(write: Callable[[], object], target: Path, old: bytes) -> int:
    """Refuse every moment of ``write`` in turn: the file is the old one or the new one; returns how many times."""
    target.write_bytes(old)
    write()
    new, cases = target.read_bytes(), 0
    for code in CODES:
        number, done = 0, False
        while not done:
            number += 1
            target.write_bytes(old)
            with Seams([target.parent], Fault(lambda n, number=number, code=code: n == number, code)) as seams:
                try:
                    write()
                except DiskError as err:
                    assert err.title and err.detail
            done = seams.count < number
            assert target.read_bytes() in (old, new)
            assert [path.name for path in target.parent.iterdir() if path.name.endswith(".part")] == []
            cases += 1
    return cases


def test_a_caption_is_the_old_one_or_the_new(tmp_path):
    path = tmp_path / "00.txt"

    def write() -> None:
        write_caption(open_caption(path), "a zorple by the sea")

    cases = old_or_new(write, path, b"a zorple\n")
    figure("disk", "refusals while a caption is saved, old text or new", f"{cases} of {cases}")


def test_a_configuration_is_the_old_one_or_the_new(tmp_path, home):
    path = tmp_path / "run.toml"
    config = settings(home, tmp_path / "runs")
    cases = old_or_new(lambda: save_config(config, path), path, b"# mine\n")
    figure("disk", "refusals while a configuration is written, old or new", f"{cases} of {cases}")


def test_settings_session_and_ratings_are_the_old_ones_or_the_new(tmp_path, monkeypatch):
    from engine.dataset.sidecar import SIDECAR_NAME, Sidecar
    from tui.session import SessionState, save_session
    from tui.settings import keep_setting

    path = tmp_path / "settings.toml"
    monkeypatch.setenv("LORAKILN_SETTINGS", str(path))
    cases = old_or_new(lambda: keep_setting("theme", "paper"), path, b"# mine\n")
    place = tmp_path / "session.json"
    cases += old_or_new(lambda: save_session(SessionState(pane="log"), place), place, b"{}")
    stars = Sidecar().with_stars("00.png", 3)
    cases += old_or_new(lambda: stars.save(tmp_path), tmp_path / SIDECAR_NAME, b"version = 1\n")
    figure("disk", "refusals while settings, session or ratings are written, old or new", f"{cases} of {cases}")


def test_what_a_run_measured_is_the_old_or_the_new(tmp_path):
    path = tmp_path / "memory.json"
    taken = [Taken(3, "micro_batch", "2", "1")]
    cases = old_or_new(lambda: write_taken(path, taken), path, b"{}")
    path = tmp_path / "products.json"
    cases += old_or_new(lambda: write_products(path, "int8", {"0.img.qkv": (True, False)}), path, b"{}")
    figure("disk", "refusals while memory.json or products.json is written, old or new", f"{cases} of {cases}")


def test_a_cache_entry_is_whole_or_not_there(tmp_path):
    store, key = Store(tmp_path / "cache"), content_key(x=1)
    for code in CODES:
        number, done = 0, False
        while not done:
            number += 1
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            with Seams([tmp_path / "cache"], Fault(lambda n, number=number, code=code: n == number, code)) as seams:
                try:
                    store.put(key, {"a": torch.ones(5000)})
                except DiskError:
                    assert Store(store.root).get(key) is None or seams.count >= number
            done = seams.count < number
            entry = Store(store.root).get(key)
            assert entry is None or bool((entry["a"] == 1).all())
            assert not list(tmp_path.rglob("*.part"))


LIMITED = """
import resource, sys
from pathlib import Path
import engine.training.patience as patience
from engine.config_file import load_config
from engine.run import Run
patience.RETRY_S = 0.1
config = load_config(Path(sys.argv[1]))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
run = Run(config)
run.start()
while run.state != "paused" and run.alive:
    run.join(0.02)
print(run.state, flush=True)
run.join()
print(run.exit_reason, flush=True)
"""


@pytest.mark.crash
def test_files_that_the_system_really_keeps_short_hold_a_run(home, expected, tmp_path):
    """A limit on the size of files, lifted from outside: the system's own refusal, not one put in by a test."""
    save_config(settings(home, tmp_path / "runs"), tmp_path / "run.toml")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "run.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "paused\n"
            hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            assert process.stdout.readline() == "finished\n"
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    ours = load_file(tmp_path / "runs" / "test" / "test.safetensors")
    assert all(torch.equal(ours[name], tensor) for name, tensor in expected[0].items())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB in memory; only root may have one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full_has_room_for_the_last_state_in_its_reserve(
    home, expected, small_disk, monkeypatch
):
    from engine.trainer import Trainer

    step_of, ballast = Trainer._step, small_disk / "ballast"

    def stepping(self: Any, turn: Any) -> None:
        step_of(self, turn)
        if turn.step == 3 and not ballast.exists():
            self.keeper.settle()
            free = os.statvfs(small_disk)
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 100_000)

    monkeypatch.setattr(Trainer, "_step", stepping)
    run = Run(settings(home, small_disk / "runs"))
    run.start()
    end = time.monotonic() + 60
    while run.state != "paused":
        assert run.alive and time.monotonic() < end, told(run, RunFailed)
        time.sleep(0.01)
    assert load_newest(run.folder.states)[0].place.step == len(told(run, StepDone)) >= 3
    ballast.unlink()
    assert run.join(120)
    check_end(run, expected[0])
