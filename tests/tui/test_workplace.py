"""What a host owns: what it opens by itself, runs that begin and are shown again, the plan of a run, the session."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
from fake_run import FakeRun, wait_until
from pocket import DEMO, pictures, pocket_config

from engine.commands import StopNow
from engine.config_file import save_config
from engine.errors import DiskError, EngineError, RunError
from engine.events import EventLog, RunStarted, StateChanged, StepDone
from engine.files import RunFolder, create_run_folder
from engine.locks import UNNAMED
from tui.bridge import PastRun, view_of
from tui.catalog_rows import Row
from tui.opening import Found, find_config, find_pictures, search, take_up
from tui.plan import pictures_in_words, plan_lines, steps_in_words
from tui.session import Draft, SessionState
from tui.workplace import Workplace


def restore(place: Workplace) -> None:
    """Open what stands in the folder of ``place``, as the workbench does after its first frame."""
    found = search(place.folder, place.session.run, place.session.config) if place.config is None else Found()
    take_up(place, found)
    if found.lost is not None:
        raise found.lost


def workplace(folder: Path, **session: object) -> Workplace:
    """A workplace with the session of last time."""
    return Workplace(folder, session=SessionState(**session))  # type: ignore[arg-type]


def test_the_newest_valid_configuration_is_opened(tmp_path: Path) -> None:
    config = pocket_config(tmp_path)
    for age, name in enumerate(("new.toml", "old.toml")):
        save_config(config, tmp_path / name)
        os.utime(tmp_path / name, (time.time() - 100 * age,) * 2)
    (tmp_path / "pyproject.toml").write_text("[tool]\nx = 1\n")
    (tmp_path / "folder.toml").mkdir()
    assert find_config(tmp_path) == tmp_path / "new.toml"
    place = workplace(tmp_path)
    restore(place)
    assert place.config_path == tmp_path / "new.toml" and place.config == config
    assert wait_until(lambda: len(place.catalog.rows) == 5)
    assert place.session.config == str(tmp_path / "new.toml")
    place.close()


def test_pictures_are_shown_where_there_is_no_configuration(tmp_path: Path) -> None:
    assert find_pictures(tmp_path) is None
    (tmp_path / "a.png").symlink_to(DEMO / "train" / "00.png")
    assert find_pictures(tmp_path) == tmp_path / "."
    pictures(tmp_path / "image", 3)
    place = workplace(tmp_path)
    restore(place)
    assert place.config is None
    assert wait_until(lambda: len(place.catalog.rows) == 3)
    place.close()


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    restore(place)
    assert place.config is None and place.run is None and not place.live
    place.close()


def test_what_is_gone_is_told_and_something_else_opened(tmp_path: Path) -> None:
    save_config(pocket_config(tmp_path), tmp_path / "here.toml")
    place = workplace(tmp_path, config=str(tmp_path / "gone.toml"), run=str(tmp_path / "runs" / "gone"))
    with pytest.raises(EngineError):
        restore(place)
    assert place.config_path == tmp_path / "here.toml" and place.run is None
    place.close()


def test_what_the_user_opens_while_the_folder_is_searched_stays(tmp_path: Path) -> None:
    save_config(pocket_config(tmp_path), tmp_path / "found.toml")
    (tmp_path / "sub").mkdir()
    save_config(pocket_config(tmp_path), tmp_path / "sub" / "chosen.toml")
    place = workplace(tmp_path)
    found = search(tmp_path, "", "")
    assert found.path == tmp_path / "found.toml" and place.config is None
    place.open_config(tmp_path / "sub" / "chosen.toml")
    take_up(place, found)
    assert place.config_path == tmp_path / "sub" / "chosen.toml"
    place.open_dataset(pictures(tmp_path / "image", 1))
    take_up(place, found)
    assert place.config is None
    place.close()


def past_run(tmp_path: Path, state: str = "training") -> Path:
    """A run's folder as it lies after its process was killed in ``state``."""
    config = pocket_config(tmp_path)
    folder = create_run_folder(config.runs_dir, config.name)
    save_config(config, folder.config)
    events = EventLog(folder.events)
    events.append(StateChanged("preparing"))
    events.append(RunStarted(config.name, str(folder.root), "flux1", "dev", 3, 9, 5))
    events.append(StateChanged("training"))
    events.append(StepDone(1, 1, 0.5, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1))
    if state != "training":
        events.append(StateChanged(state))
    events.close()
    return folder.root


def test_the_run_of_last_time_is_shown_again(tmp_path: Path) -> None:
    folder = past_run(tmp_path)
    place = workplace(tmp_path, run=str(folder))
    restore(place)
    bridge = place.bridge
    assert isinstance(place.run, PastRun) and bridge is not None
    assert wait_until(lambda: bridge.poll() is not None and place.view.seq == 4)
    assert place.view.step == 1 and place.view.state == "interrupted" and not place.view.live
    assert not place.live and place.config == pocket_config(tmp_path)
    place.close()


def test_a_run_that_another_process_trains_is_followed_and_left_to_it(tmp_path: Path) -> None:
    folder = past_run(tmp_path)
    lock = RunFolder(folder).lock
    events = EventLog(RunFolder(folder).events)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4242\n")
        file.flush()
        place = workplace(tmp_path)
        run = place.show(folder)
        bridge = place.bridge
        assert bridge is not None
        assert wait_until(lambda: bridge.poll() is not None and place.view.seq == 4)
        assert place.view.state == "training" and place.elsewhere == "4242" and not place.live
        with pytest.raises(RunError, match="Another process") as refused:
            run.submit(StopNow())
        assert "4242" in refused.value.detail
        with pytest.raises(RunError, match="Another process"):
            place.resume(folder)
        events.append(StepDone(2, 1, 0.4, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1))
        assert wait_until(lambda: "step" in bridge.poll())
        assert place.view.step == 2 and place.view.seq == 5
    # It lets go of its lock first, and then says how it ended.
    events.append(StateChanged("finished"))
    assert wait_until(lambda: bool(bridge.poll()) and not place.view.live)
    assert place.view.state == "finished" and place.elsewhere == ""
    assert view_of(RunFolder(folder).events).seq == place.view.seq == 6
    events.close()
    place.close()


def test_a_run_whose_process_was_killed_meanwhile_is_interrupted(tmp_path: Path) -> None:
    folder = past_run(tmp_path)
    with open(RunFolder(folder).lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        place = workplace(tmp_path)
        place.show(folder)
        bridge = place.bridge
        assert bridge is not None
        assert wait_until(lambda: bridge.poll() is not None and place.view.seq == 4)
        assert place.view.live and place.elsewhere == UNNAMED
    assert wait_until(lambda: bool(bridge.poll()) and not place.view.live)
    assert place.view.state == "interrupted" and place.elsewhere == ""
    place.close()


def test_a_folder_without_a_run_cannot_be_shown(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    with pytest.raises(RunError):
        place.show(tmp_path)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    folder = past_run(tmp_path)
    run = FakeRun(tmp_path / "live", step_s=0.05)
    place = Workplace.around(run, tmp_path)
    assert place.live and not run.alive  # begun after the first frame
    place.begin_pending()
    assert run.alive and place.pending is None
    for refused in (
        lambda: place.begin(pocket_config(tmp_path)),
        lambda: place.resume(folder),
        lambda: place.show(folder),
    ):
        with pytest.raises(RunError, match="live already"):
            refused()
    run.submit(StopNow())
    assert run.join(10)
    assert not place.live
    place.show(folder)
    place.close()


def test_the_session_lies_in_a_folder_of_the_users_own(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    place.session.filter = "zorple"
    place.save_session()
    assert (tmp_path / ".kiln").stat().st_mode & 0o777 == 0o700
    assert Workplace(tmp_path).session.filter == "zorple"


def test_a_run_of_a_command_goes_on_with_the_session(tmp_path: Path) -> None:
    """`kiln train` beside a caption that could not be written yet: the draft is still there afterwards."""
    place = workplace(tmp_path)
    place.session.draft = Draft("/x/a.png", "not saved", "abc")
    place.save_session()
    beside = Workplace.around(FakeRun(tmp_path / "live"), tmp_path)
    beside.save_session()
    assert Workplace(tmp_path).session.draft.text == "not saved"


def test_a_session_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    place = workplace(tmp_path)
    (tmp_path / ".kiln" / "session.json").mkdir(parents=True)
    with pytest.raises(DiskError):
        place.save_session()
    assert "session.json" in place.lost
    (tmp_path / ".kiln" / "session.json").rmdir()
    place.save_session()
    assert place.lost == ""


def test_a_session_that_a_host_keeps_is_left_alone(tmp_path: Path) -> None:
    place = workplace(tmp_path, filter="mine")
    place.shared = True
    place.save_session()
    place.close()
    assert not (tmp_path / ".kiln" / "session.json").exists()


def rows(count: int, **values: object) -> list[Row]:
    """Rows of square pictures with captions."""
    kept: dict[str, object] = {"caption": "a", "bucket": (64, 64)} | values
    names = [Path(f"{number:02}.png") for number in range(count)]
    return [Row(name, name.name, name.with_suffix(".txt"), **kept) for name in names]  # type: ignore[arg-type]


def test_steps_are_told_once_every_picture_is_measured(tmp_path: Path) -> None:
    config = pocket_config(tmp_path)  # micro-batches of 1, two a step, 3 epochs
    assert steps_in_words(config, rows(5)) == "9 steps"
    assert steps_in_words(config, rows(5, bucket=None)) == "counting steps"
    assert steps_in_words(config, [*rows(5), *rows(3, severity="error", bucket=None)]) == "9 steps"
    assert steps_in_words(config, [*rows(5), *rows(9, regularization=True)]) == "15 steps"
    assert steps_in_words(config, []) == "0 steps"


def test_the_plan_tells_what_is_missing(tmp_path: Path) -> None:
    lines = dict(plan_lines(pocket_config(tmp_path), [*rows(3), *rows(1, caption=None), *rows(1, severity="error")]))
    assert lines["pictures"] == '4, 1 without caption, 1 unusable, trigger word "zorple"'
    assert lines["length"] == "3 epochs of batch 2: 6 steps"
    assert pictures_in_words([*rows(16), *rows(160, regularization=True)]) == "16, 160 of the class"
    assert lines["samples"] == "none"


@pytest.mark.parametrize("configured", [True, False])
def test_a_run_that_broke_off_is_shown_when_its_folder_is_opened(tmp_path: Path, configured: bool) -> None:
    folder = past_run(tmp_path)
    config = pocket_config(tmp_path)
    if configured:
        save_config(config, tmp_path / "here.toml")
    place = workplace(tmp_path)
    restore(place)
    assert place.run is not None and place.run.folder is not None and place.run.folder.root == folder
    assert place.config == config
    assert place.config_path == (tmp_path / "here.toml" if configured else None)
    place.close()


@pytest.mark.parametrize("newer", ["finished", "another"])
def test_a_run_that_was_followed_by_another_is_not_gone_back_to(tmp_path: Path, newer: str) -> None:
    old = past_run(tmp_path)
    save_config(pocket_config(tmp_path), tmp_path / "here.toml")
    if newer == "finished":
        os.utime(RunFolder(old).events, (1, 1))
        past_run(tmp_path, "finished")
    else:
        old.rename(old.with_name("another"))
    place = workplace(tmp_path)
    restore(place)
    assert place.run is None and place.config_path == tmp_path / "here.toml"
    place.close()


def test_the_plan_names_the_folder_that_a_run_would_get(tmp_path: Path) -> None:
    config = pocket_config(tmp_path)
    assert dict(plan_lines(config, []))["goes to"].endswith("/test")
    past_run(tmp_path)
    assert dict(plan_lines(config, []))["goes to"].endswith("/test-2")


def test_a_run_begun_with_the_host_is_what_it_opens_on(tmp_path: Path) -> None:
    assert Workplace.around(FakeRun(tmp_path), tmp_path).session.pane == "training"
