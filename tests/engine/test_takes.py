"""Captions edited while a run is live count from the next epoch; the bits are those of the captions in force.

The oracle is an undisturbed run whose order is told the same captions by hand, without files, history or events.
"""

import json
import os
import shutil
import time

import pytest
import torch
from pocket import finish, pictures, pocket_config, told
from safetensors.torch import load_file

import engine.trainer as trainer_module
from engine.batches import Order
from engine.commands import Pause, Resume, StopNow
from engine.dataset.watch import CaptionWatch, Changes
from engine.errors import CacheError
from engine.events import CaptionsTaken, Log, RunFailed, StateChanged, StepDone
from engine.run import Run, open_run
from engine.trainer import Trainer
from engine.training.prepare import prepare
from engine.training.step_losses import parts
from engine.training.takes import Takes

NEW, OTHER, UNSEEN = "a zorple of glass, upside down", "nothing at all, a void", "seen by no test before"
SHORT = {"epochs": 4, "accumulation": 1, "gradient_checkpointing": False}
"""Three pictures, four epochs of three steps: the shortest run in which an edit has epochs before and after it."""
STEP = Trainer._step
SLOW = pytest.mark.slow
VARIED = {"captions": {"shuffle": True, "dropout": 0.1, "tag_dropout": 0.1}}


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    """Files written an instant ago are not read again out of caution: remarks would be told twice."""
    monkeypatch.setattr("engine.dataset.watch.UNSETTLED_NS", 0)


def edit_after(monkeypatch, plan):
    """Do things right after the given steps, in the loop's own thread."""
    step_of = Trainer._step

    def stepping(self, turn):
        step_of(self, turn)
        plan.get(turn.step, lambda _: None)(self)

    monkeypatch.setattr(Trainer, "_step", stepping)


def write(path, text):
    """A deed for :func:`edit_after`: another program writes a caption."""
    return lambda _: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def submit(*commands):
    """A deed for :func:`edit_after`: commands are submitted."""
    return lambda trainer: [trainer.control.commands.submit(command) for command in commands]


def both(*deeds):
    """Several deeds as one."""
    return lambda trainer: [deed(trainer) for deed in deeds]


def result(run):
    assert run.exit_reason == "finished", told(run, RunFailed)
    losses = {event.step: event.loss for event in told(run, StepDone)}
    return load_file(run.folder.root / f"{run.folder.name}.safetensors"), losses


def same(first, second):
    (weights, losses), (other_weights, other_losses) = first, second
    return all(torch.equal(weights[name], other_weights[name]) for name in weights) and all(
        other_losses[step] == loss for step, loss in losses.items()
    )


def taken(run):
    """Epoch and names of what the run told it took up."""
    return [(event.epoch, [os.path.basename(name) for name in event.names]) for event in told(run, CaptionsTaken)]


def logged(run, words):
    return [event.text for event in told(run, Log) if words in event.text]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One cache for all. Gives a configuration over fresh captions, and what captions set by hand give."""
    place = tmp_path_factory.mktemp("takes")
    made = {}

    def config(varied=True, **training):
        pictures(place / "data", 3)
        saving = {"every_epochs": 0, "keep_states": 12}
        return pocket_config(place, training=SHORT | training, dataset=VARIED if varied else {}, saving=saving)

    def oracle(*changes, varied=True):
        """The result of a run in which pictures have other captions from given epochs on: (name, epoch, text)."""
        if (changes, varied) not in made:
            with pytest.MonkeyPatch.context() as patch:
                init = Order.__init__

                def knowing(self, samples, *rest):
                    init(self, samples, *rest)
                    for name, epoch, text in changes:
                        self.take(epoch, {s.index: text for s in samples if s.path.name == name})

                patch.setattr(Trainer, "_step", STEP)
                patch.setattr(Order, "__init__", knowing)
                patch.setattr(CaptionWatch, "look", lambda self, text_of: Changes())
                made[changes, varied] = result(finish(Run(config(varied))))
        return made[changes, varied]

    return config, oracle, place / "data"


@pytest.mark.parametrize("varied", [pytest.param(False, marks=SLOW), True])
def test_an_edit_counts_from_the_next_epoch(home, monkeypatch, varied):
    config, oracle, data = home
    edit_after(monkeypatch, {4: write(data / "00.txt", NEW)})
    run = finish(Run(config(varied)))
    changed = result(run)
    assert taken(run) == [(3, ["00.png"])]
    assert same(changed, oracle(("00.png", 3, NEW), varied=varied))
    before = oracle(varied=varied)
    assert not same(changed, before)
    assert all(before[1][step] == changed[1][step] for step in range(1, 7))
    # What had to be encoded was, and the state said so.
    states = [event.state for event in told(run, StateChanged)]
    assert states.count("caching") == 2


def test_an_edit_while_the_caches_fill_counts_from_the_second_epoch(home, monkeypatch):
    config, oracle, data = home

    def preparing(*rest):
        found = prepare(*rest)
        (data / "00.txt").write_text(NEW)
        return found

    monkeypatch.setattr(trainer_module, "prepare", preparing)
    run = finish(Run(config()))
    assert taken(run) == [(2, ["00.png"])] and same(result(run), oracle(("00.png", 2, NEW)))


def test_nothing_edited_costs_no_encoding_and_is_told_nowhere(home):
    config, oracle, data = home
    run = finish(Run(config()))
    assert same(result(run), oracle()) and not taken(run)
    assert [event.state for event in told(run, StateChanged)].count("caching") == 1
    lines = [json.loads(line) for line in (run.folder.root / "captions.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["captions"].keys() == {str(path) for path in data.glob("*.png")}
    assert not any(line["captions"] for line in lines[1:])


def test_a_file_touched_or_changed_back_counts_nothing(home, monkeypatch):
    config, oracle, data = home
    settings = config()
    text = (data / "00.txt").read_text()
    back = both(write(data / "00.txt", "else"), write(data / "00.txt", text + "\n"))
    edit_after(monkeypatch, {2: back, 5: write(data / "00.txt", NEW), 8: write(data / "00.txt", text)})
    run = finish(Run(settings))
    assert taken(run) == [(3, ["00.png"]), (4, ["00.png"])]
    assert same(result(run), oracle(("00.png", 3, NEW), ("00.png", 4, text)))


@pytest.mark.parametrize(
    "steps", [pytest.param(range(1, 12), marks=SLOW, id="all"), pytest.param((4, 6, 7), id="around")]
)
def test_stopping_and_resuming_changes_nothing(home, monkeypatch, steps):
    """At every step; in the gate only before, at and after the boundary at which edits come in."""
    config, oracle, data = home
    plan = {step: submit(StopNow()) for step in steps}
    plan[4] = both(write(data / "00.txt", NEW), plan[4])
    plan[6] = both(write(data / "01.txt", OTHER), plan[6])
    edit_after(monkeypatch, plan)
    run = finish(Run(config()))
    events = taken(run)
    for _ in steps:
        run = finish(open_run(run.folder.root))
        events += taken(run)
    assert events == [(3, ["00.png", "01.png"])]
    assert same(result(run), oracle(("00.png", 3, NEW), ("01.png", 3, OTHER)))


@pytest.mark.parametrize("back", [pytest.param(2, marks=SLOW), 4, pytest.param(7, marks=SLOW)])
def test_a_run_thrown_back_uses_what_was_decided_before(home, monkeypatch, back):
    """A kill loses the last steps; the epochs done again get the captions that they had, not today's."""
    config, oracle, data = home
    plan = {4: write(data / "00.txt", NEW), 8: write(data / "00.txt", OTHER), 10: submit(StopNow())}
    edit_after(monkeypatch, plan)
    run = finish(Run(config(state_every_steps=1)))
    for state in run.folder.states.iterdir():
        if int(state.name.removeprefix("step-")) > back:
            shutil.rmtree(state)
    plan.clear()
    again = finish(open_run(run.folder.root))
    assert told(again, StepDone)[0].step == back + 1
    assert same(result(again), oracle(("00.png", 3, NEW), ("00.png", 4, OTHER)))
    assert taken(again) == [(3, ["00.png"]), (4, ["00.png"])][back > 6 :]


@pytest.mark.parametrize("step", [pytest.param(5, marks=SLOW), 6])
def test_an_edit_while_the_run_is_stopped_counts_from_its_next_epoch(home, monkeypatch, step):
    config, oracle, data = home
    edit_after(monkeypatch, {step: submit(StopNow())})
    run = finish(Run(config()))
    (data / "00.txt").write_text(NEW)
    again = finish(open_run(run.folder.root))
    assert logged(again, "since the run stopped count from epoch 3: 00.png (1)")
    assert not logged(again, "its course may differ")
    assert taken(again) == [(3, ["00.png"])]
    assert same(result(again), oracle(("00.png", 3, NEW)))


def test_an_edit_in_the_last_epoch_is_said_to_come_too_late(home, monkeypatch):
    config, oracle, data = home
    edit_after(monkeypatch, {10: submit(StopNow())})
    run = finish(Run(config()))
    (data / "00.txt").write_text(NEW)
    again = finish(open_run(run.folder.root))
    assert logged(again, "count from epoch 5, after the run's last") and not taken(again)
    assert same(result(again), oracle())


def test_an_edit_during_a_pause_counts_from_the_next_epoch(home, monkeypatch):
    config, oracle, data = home
    paused = both(submit(Pause(release=True)), write(data / "00.txt", NEW), submit(Resume()))
    edit_after(monkeypatch, {5: paused})
    run = finish(Run(config()))
    assert taken(run) == [(3, ["00.png"])] and same(result(run), oracle(("00.png", 3, NEW)))


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(b"caf\xe9", marks=SLOW, id="encoding"),
        pytest.param(b"a\x1b[2Jb", id="escape"),
        pytest.param(None, marks=SLOW, id="removed"),
    ],
)
def test_a_caption_that_cannot_be_read_keeps_its_text(home, monkeypatch, harm):
    config, oracle, data = home
    deed = (lambda _: (data / "00.txt").unlink()) if harm is None else write(data / "00.txt", harm)
    edit_after(monkeypatch, {4: deed, 8: submit(StopNow())})
    run = finish(Run(config()))
    [warning] = logged(run, "keeps the text it had")
    assert "00.png" in warning and "\x1b" not in warning
    again = finish(open_run(run.folder.root))
    assert logged(again, "the run goes on with the text it had")
    assert not taken(run) + taken(again) and same(result(again), oracle())


def test_a_caption_written_for_a_picture_without_one_counts(home, monkeypatch):
    config, oracle, data = home
    settings = config()
    text = (data / "02.txt").read_text()
    bare = both(lambda _: (data / "02.txt").unlink(), write(data / "02.caption", text + ", here"))
    edit_after(monkeypatch, {4: bare})
    run = finish(Run(settings))
    (data / "02.caption").unlink()
    assert taken(run) == [(3, ["02.png"])]
    assert same(result(run), oracle(("02.png", 3, text + ", here")))


def test_a_stop_while_captions_are_encoded_loses_nothing(home, monkeypatch):
    config, oracle, data = home
    plan = {4: write(data / "00.txt", UNSEEN)}
    edit_after(monkeypatch, plan)
    leave = Takes._leave

    def stopping(self):
        leave(self)
        self.control.commands.submit(StopNow())

    with monkeypatch.context() as patch:
        patch.setattr(Takes, "_leave", stopping)
        run = finish(Run(config()))
    assert run.exit_reason == "stopped" and told(run, StepDone)[-1].step == 6 and not taken(run)
    again = finish(open_run(run.folder.root))
    assert taken(again) == [(3, ["00.png"])]
    assert same(result(again), oracle(("00.png", 3, UNSEEN)))


def test_captions_that_cannot_be_encoded_are_tried_again(home, monkeypatch):
    config, oracle, data = home
    edit_after(monkeypatch, {4: write(data / "00.txt", NEW)})
    embed, failures = Takes._embed, [CacheError("No room", "on the GPU")]

    def failing(self, captions):
        if captions and failures:
            raise failures.pop()
        embed(self, captions)

    monkeypatch.setattr(Takes, "_embed", failing)
    run = finish(Run(config()))
    assert logged(run, "do not count yet: No room; on the GPU")
    assert taken(run) == [(4, ["00.png"])] and same(result(run), oracle(("00.png", 4, NEW)))


def test_a_gpu_that_filled_up_meanwhile_is_waited_for(home, monkeypatch):
    """Coming back from the text encoders without room is a pause that has released the GPU."""
    config, oracle, data = home
    edit_after(monkeypatch, {4: write(data / "00.txt", "never seen, " + NEW)})
    back, full = trainer_module.return_to_gpu, [True]

    def away(self):
        self.keeper.enter("caching")
        self.away = True

    def crowded(kit):
        if full:
            full.pop()
            raise torch.OutOfMemoryError("full")
        back(kit)

    monkeypatch.setattr(Takes, "_leave", away)
    monkeypatch.setattr(trainer_module, "return_to_gpu", crowded)
    run = Run(config())
    run.start()
    end = time.monotonic() + 60
    while run.state != "released" and time.monotonic() < end:
        time.sleep(0.01)
    assert logged(run, "no room for the run yet") and told(run, StepDone)[-1].step == 6
    run.submit(Resume())
    assert run.join(60) and [event.state for event in told(run, StateChanged)].count("released") == 1
    assert same(result(run), oracle(("00.png", 3, "never seen, " + NEW)))


def test_names_are_told_in_lines_that_stay_short():
    names = [f"/d/{number}/" + "\u732b" * 1000 for number in range(40)]
    found = list(parts(names))
    assert [name for part in found for name in part] == names and len(found) > 1
    assert all(len(json.dumps(part)) < 40_000 for part in found)
    assert list(parts([])) == [] and list(parts(["x" * 50_000])) == [("x" * 50_000,)]


@pytest.mark.parametrize("left", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_epochs_whose_captions_are_gone_are_told(tmp_path, monkeypatch, left):
    """A file cut between two lines is whole by itself: the state's epoch says that something is missing."""
    edit_after(monkeypatch, {7: submit(StopNow())})
    run = finish(Run(pocket_config(tmp_path, training={**SHORT, "epochs": 2})))
    monkeypatch.setattr(Trainer, "_step", STEP)
    path = run.folder.captions
    lines = path.read_text().splitlines(keepends=True)
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    path.write_text("".join(lines[:left]))
    again = finish(open_run(run.folder.root))
    gone = [event.text for event in told(again, Log) if "not in the run's folder" in event.text]
    assert again.exit_reason == "finished"
    assert len(gone) == 2 - left and all("from epoch 2 to 2 is" in text for text in gone)
