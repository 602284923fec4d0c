"""Which LoRA files stay: by rule on made saves, and in runs that stop, break off and are starred."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import assert_same, finished, freezer, left_by, varied_config, watching
from pocket import finish, measuring, pocket_config, submit_after, told

from engine.commands import Keep, SaveNow, StopNow
from engine.config import CANDIDATES
from engine.events import Advised, CheckpointRemoved, CheckpointSaved, EventLog, Kept, RunDone, RunStarted
from engine.files import RunFolder
from engine.run import Run, open_run
from engine.training.advisor import Advice, on_disk
from engine.training.room import SaveSize
from engine.training.shelf import Save, Shelf, superfluous, told_files
from tui.bridge import view_of

NO_ADVICE = Advice("unclear")


def epochs(*numbers, kind="epoch"):
    return [Save(10 * number, number, kind) for number in numbers]


def stay(saves, limit, advice=NO_ADVICE, starred=(), last=False):
    gone = superfluous(saves, limit, advice, starred, last)
    return [save.epoch for save in saves if save not in gone]


def test_the_newest_stay_and_no_limit_keeps_all():
    assert stay(epochs(*range(1, 9)), 3) == [6, 7, 8]
    assert stay(epochs(1, 2), 3) == [1, 2] and stay(epochs(*range(1, 9)), 0) == list(range(1, 9))


def test_what_is_recommended_stays_with_its_neighbours():
    saves, advice = epochs(*range(2, 21, 2)), Advice("over", 4, 12, 6)
    assert stay(saves, 5, advice) == [4, 6, 8, 18, 20]
    assert stay(saves, 7, advice) == [4, 6, 8, 14, 16, 18, 20]
    # The whole range where that leaves the newest their half.
    assert stay(epochs(*range(1, 31)), 12, Advice("over", 4, 8, 5)) == [4, 5, 6, 7, 8, *range(24, 31)]
    assert stay(saves, 1, advice) == [4, 6, 8, 20]


def test_starred_ones_stay_and_take_no_place():
    saves = epochs(*range(1, 9))
    assert stay(saves, 2, starred=(3, 5)) == [3, 5, 7, 8]
    assert stay(saves, 2, Advice("over", 3, 3, 3), starred=(2,)) == [2, 3, 4, 8]


def test_candidates_roll_of_themselves_and_the_last_save_clears_them():
    saves = sorted(epochs(10) + epochs(*range(1, 10), kind="candidate"), key=lambda save: save.step)
    assert stay(saves, 0) == [*range(10 - CANDIDATES, 10), 10]
    assert stay(saves, 0, Advice("in range", 3, 5, 4)) == [3, 4, 5, *range(10 - CANDIDATES, 10), 10]
    assert stay(saves, 0, Advice("in range", 3, 5, 4), last=True) == [3, 4, 5, 10]


SAVES = st.lists(st.sampled_from(["epoch", "step", "candidate", "manual", "stop", "final"]), max_size=40).map(
    lambda kinds: [Save(number, (number + 2) // 3, kind) for number, kind in enumerate(kinds, start=1)]
)


@given(SAVES, st.integers(0, 9), st.integers(0, 14), st.sets(st.integers(1, 14), max_size=3), st.booleans())
def test_whatever_is_saved_and_advised_the_rules_hold(saves, limit, best, starred, last):
    advice = Advice("over", max(1, best - 1), best + 3, best) if best else NO_ADVICE
    gone = superfluous(saves, limit, advice, starred, last)
    kept = [save for save in saves if save not in gone]
    rolling = [save for save in saves if save.kind in ("epoch", "step")]
    assert all(save.kind in ("epoch", "step", "candidate") and save.epoch not in starred for save in gone)
    assert not rolling or rolling[-1] in kept
    assert limit or not any(save in gone for save in rolling)
    ends = [save for save in saves if save.kind in ("epoch", "candidate")]
    assert not best or not any(save.epoch == best for save in gone if save in ends)
    left = [save for save in kept if save in rolling and save.epoch not in starred]
    most = {save.step for save in ends if abs(save.epoch - best) <= 14} if best else set()
    assert not limit or len(left) <= limit + len(most)
    # What stays now stays if nothing is new: a second look removes no more.
    assert superfluous(kept, limit, advice, starred, last) == []


def test_a_recommendation_is_one_that_can_be_had():
    advice = Advice("over", 11, 15, 12, True)
    assert on_disk(advice, {10, 12}) is advice and on_disk(advice, ()) is advice
    near = on_disk(advice, {10, 14, 20})
    assert (near.first, near.best, near.last) == (11, 14, 15) and "Epoch 12 was better" in near.text
    assert dataclasses.astuple(on_disk(advice, {5, 10}))[1:4] == (10, 15, 10)
    assert on_disk(NO_ADVICE, {5}) is NO_ADVICE


def files(folder):
    return sorted(path.name.removeprefix(folder.name) for path in folder.root.glob("*.safetensors"))


def test_a_run_keeps_the_newest_in_all_layouts_and_its_view_lists_what_stands(tmp_path):
    layouts = ["kohya", "diffusers"]
    run = finish(Run(pocket_config(tmp_path, training={"epochs": 5}, saving={"keep_loras": 2, "layouts": layouts})))
    folder = finished(run)
    plain = ["-e0004.safetensors", "-e0005.safetensors", ".safetensors"]
    assert files(folder) == sorted([*plain, *(name.replace(".", ".diffusers.", 1) for name in plain)])
    assert [event.epoch for event in told(run, CheckpointRemoved)] == [1, 1, 2, 2, 3, 3]
    view = view_of(folder.events)
    assert sorted(Path(saved.path).name.removeprefix("test") for saved in view.checkpoints) == files(folder)


def test_what_a_user_or_a_stop_saved_stays(tmp_path, monkeypatch):
    submit_after(monkeypatch, {2: [SaveNow()], 4: [StopNow()]})
    config = pocket_config(tmp_path, training={"epochs": 4}, saving={"every_steps": 4, "keep_loras": 1})
    stopped = finish(Run(config))
    assert stopped.exit_reason == "stopped"
    run = finish(open_run(stopped.folder.root))
    # Step 4 was also saved by the cadence, under the same name as the stop.
    assert files(finished(run)) == [
        "-e0004.safetensors",
        "-s000002.safetensors",
        "-s000004.safetensors",
        ".safetensors",
    ]


def test_stars_come_as_a_command_and_outlive_the_run(tmp_path, monkeypatch):
    submit_after(monkeypatch, {4: [Keep((1, 1, -3))], 7: [StopNow()]})
    config = pocket_config(tmp_path, training={"epochs": 5}, saving={"keep_loras": 1})
    stopped = finish(Run(config))
    assert told(stopped, Kept) == [Kept((1,))]
    run = finish(open_run(stopped.folder.root))
    assert "-e0001.safetensors" in files(finished(run)) and "-e0002.safetensors" not in files(run.folder)


@pytest.mark.parametrize("saving", [{"keep_loras": 1}, {"keep_loras": 2, "every_steps": 2, "every_epochs": 0}])
@pytest.mark.crash
def test_a_run_killed_while_it_saves_leaves_in_the_end_what_an_undisturbed_one_leaves(tmp_path, saving):
    config = varied_config(tmp_path, saving=saving)
    moments = [("lora", 2), ("lora", 3), ("state", 2), ("state", 4), ("epoch", 2)]
    with watching(freezer(tmp_path / "frozen", *moments)):
        wanted = left_by(finished(finish(Run(config))))
    for kind, count in moments:
        again = finish(open_run(tmp_path / "frozen" / f"{kind}-{count}" / "test"))
        assert_same(left_by(finished(again)), wanted)
        assert files(again.folder) == files(RunFolder(config.runs_dir / "test"))


def log_of(folder, *events):
    log = EventLog(folder.events)
    for event in events:
        log.append(event)
    return log


def saved_in(folder, *numbers, kind="epoch", size=3):
    events = [CheckpointSaved(str(folder.lora(n, 10 * n, kind)), 10 * n, n, kind, 3) for n in numbers]
    for event in events:
        Path(event.path).write_bytes(bytes(size))
    return events


def test_one_file_too_many_after_a_kill_goes_with_the_next_save_and_an_untold_end_is_told(tmp_path):
    folder = RunFolder(tmp_path / "cat")
    folder.root.mkdir()
    events = saved_in(folder, 1, 2, 3, 4)
    folder.lora(1, 10, "epoch").unlink()
    log = log_of(folder, *events)
    shelf = Shelf(2, folder, log)
    shelf.take_up(40)
    assert shelf.epochs == {1, 2, 3, 4} and shelf.to_come() == 0
    shelf.tidy(NO_ADVICE)
    assert files(folder) == ["-e0003.safetensors", "-e0004.safetensors"]
    assert [entry.event.epoch for entry in log.since(4)] == [1, 2] and shelf.epochs == {3, 4}
    shelf.tidy(NO_ADVICE)
    assert len(log.since(6)) == 0


def test_only_what_the_run_wrote_goes_wherever_its_folder_lies_now(tmp_path):
    old, folder = RunFolder(tmp_path / "old" / "cat"), RunFolder(tmp_path / "renamed")
    old.root.mkdir(parents=True)
    events = saved_in(old, 1, 2, 3, 4, 5)
    odd = ["config.toml", "../../precious", "a\0/a\0-e0001.safetensors", "\ud800/\ud800-e0001.safetensors"]
    odd = [CheckpointSaved(str(old.root / name), 1, 1, "epoch", 3) for name in odd]
    log_of(old, *odd, *events).close()
    (tmp_path / "precious").write_bytes(bytes(3))
    old.config.write_bytes(bytes(3))
    old.root.rename(folder.root)
    (folder.root / "cat-e0002.safetensors").write_bytes(b"my own")
    (folder.root / "cat-e0003.safetensors").unlink()
    (folder.root / "cat-e0003.safetensors").symlink_to(tmp_path / "precious")
    shelf = Shelf(1, folder, EventLog(folder.events))
    shelf.take_up(99)
    shelf.tidy(NO_ADVICE)
    assert sorted(path.name for path in folder.root.glob("*.safetensors")) == [
        "cat-e0002.safetensors", "cat-e0003.safetensors", "cat-e0005.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "precious").read_bytes() == bytes(3) and folder.config.exists()


def test_files_of_steps_that_are_done_again_are_not_counted(tmp_path):
    folder = RunFolder(tmp_path / "cat")
    folder.root.mkdir()
    first, second, third = saved_in(folder, 1, 2, 3)
    started = RunStarted("cat", str(folder.root), "flux", "dev", 5, 50, 5, 20)
    log = log_of(folder, first, second, third, started, CheckpointRemoved(first.path, 10, 1))
    log.close()
    assert list(told_files(folder.events, 99)) == [second]
    assert list(told_files(folder.events, 15)) == []


def test_a_file_that_cannot_be_removed_is_told_and_tried_again(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "cat")
    folder.root.mkdir()
    log = log_of(folder, *saved_in(folder, 1, 2))
    shelf = Shelf(1, folder, log)
    shelf.take_up(20)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        shelf.tidy(NO_ADVICE)
    assert "could not be removed: Permission denied" in log.since(2)[0].event.text and shelf.epochs == {1, 2}
    shelf.tidy(NO_ADVICE)
    assert shelf.epochs == {2} and files(folder) == ["-e0002.safetensors"]


def test_the_forecast_of_room_knows_the_limit():
    size = SaveSize(state=0, lora=10)
    slack = size.whole - 10
    assert [size.fit(10 + extra + slack, 0, 1) for extra in (0, 10)] == [1, 4]
    assert size.fit(10 + slack, 0, 0) == 4 and size.fit(10 + slack, 0) == 1


@pytest.mark.parametrize("every", [5, pytest.param(10, marks=pytest.mark.slow), 0])
def test_on_recorded_runs_a_good_epoch_is_on_the_disk_in_the_end(every):
    from tests.bench.sweet.on_disk import end_of

    recorded = Path(__file__).resolve().parents[1] / "bench" / "sweet" / "recorded"
    ends = [ended for path in recorded.glob("*.json") if (ended := end_of(path.stem, every))]
    assert len(ends) > 9 and all(ended.good and ended.most <= CANDIDATES + 3 for ended in ends)


def advised_config(tmp_path, **changes):
    stopping = {"training": {"epochs": 12}, "stop": {"mode": "stop"}}
    return pocket_config(tmp_path, validation=measuring(tmp_path), **(stopping | changes))


def scripted(monkeypatch, over_at):
    """The third epoch turns out to be the best; over from an epoch on."""

    def advise(found, stop):
        epoch = found[-1].epoch
        if epoch < 4:
            return Advice("unclear")
        return Advice("over", 3, 4, 3, over=True) if epoch >= over_at else Advice("in range", 2, 4, 3)

    monkeypatch.setattr("engine.training.measurer.advise", advise)


def test_the_recommended_epoch_is_on_the_disk_when_a_run_stops_itself(tmp_path, monkeypatch):
    scripted(monkeypatch, over_at=9)
    run = finish(Run(advised_config(tmp_path, saving={"every_epochs": 5})))
    assert run.exit_reason == "stopped" and told(run, RunDone)[-1].epoch == 9
    best = told(run, Advised)[-1].best
    kinds = {event.epoch: event.kind for event in told(run, CheckpointSaved) if event.kind in ("epoch", "candidate")}
    assert best == 3 and kinds[3] == "candidate" and kinds[5] == "epoch"
    names = {event.path for event in told(run, CheckpointRemoved)}
    assert [Path(name).name for name in sorted(names)] == ["test-e0001.safetensors"]
    assert run.folder.lora(best, 0, "epoch").is_file()


def test_where_nothing_is_advised_no_candidates_are_written(tmp_path, monkeypatch):
    run = finish(
        Run(advised_config(tmp_path, stop={"mode": "off"}, training={"epochs": 3}, saving={"every_epochs": 2}))
    )
    assert [event.kind for event in told(run, CheckpointSaved)] == ["epoch", "final"]
