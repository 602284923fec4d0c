"""The advisor on curves made by hand, on recorded runs, and in a run that it ends."""

import json
import random
from pathlib import Path

import pytest
from pocket import DEMO, finish, pocket_config, told

from engine.config import StopConfig
from engine.events import Advised, Measured, RunDone, RunFailed, StopPlanned
from engine.run import Run, open_run
from engine.training.advisor import Advice, advise, curve

RECORDED = Path(__file__).resolve().parents[1] / "bench" / "sweet" / "recorded"


def measured(values, noise=0.0, train=None, pictures=8, seed=1):
    """A measurement for each value of the held-out loss, the base first."""
    draw = random.Random(seed)
    made = []
    for number, value in enumerate(values):
        own = tuple(value + draw.gauss(0, noise) + 0.01 * place for place in range(pictures))
        loss = sum(own) / len(own) if own else 0.0
        made.append(
            Measured(
                number * 10,
                number,
                (loss, loss) if own else (),
                (loss, loss, loss) if own else (),
                own,
                (train[number] if train else value - 0.1,),
                (),
                0.03 * (1 - 0.7**number),
            )
        )
    return made


def falling(count, floor=0.5):
    return [floor + 0.5 * 0.7**number for number in range(count)]


U_SHAPED = [*falling(12), *(0.51 + 0.02 * number for number in range(12))]


def test_a_curve_is_smoothed_and_its_noise_estimated():
    draw = random.Random(3)
    noisy = curve(range(60), [5.0 - 0.02 * n + draw.gauss(0, 0.1) for n in range(60)])
    assert 0.06 < noisy.noise < 0.16
    assert curve(range(5), [5.0, 4.0, 3.0, 2.0, 1.0]).noise == 0.0


def test_too_little_is_unclear():
    assert advise([]).verdict == advise(measured(falling(3))).verdict == "unclear"
    assert "Too few" in advise(measured(falling(3))).text


def test_still_falling_is_under_trained():
    advice = advise(measured(falling(8)))
    assert advice.verdict == "under" and not advice.over and "still falling" in advice.text
    assert "Train longer" in advice.changes[0]


def test_a_flat_bottom_is_in_range():
    advice = advise(measured([*falling(15), *[0.5] * 10], noise=0.001))
    assert advice.verdict == "in range" and not advice.over and "flat" in advice.text
    assert advice.first <= advice.best <= advice.last and 6 <= advice.best <= 15


def test_a_u_is_over_after_patience_and_its_range_holds_the_bottom():
    for end in range(13, len(U_SHAPED) + 1):
        advice = advise(measured(U_SHAPED[:end], noise=0.0005), StopConfig(patience=3))
        assert not advice.over or end >= 12 + 3
    assert advice.over and advice.verdict == "over" and advice.first <= 11 <= advice.last
    assert advice.last - advice.first + 1 <= len(U_SHAPED) / 4 + 1
    assert advice.of_epoch(1) == "under" and advice.of_epoch(11) == "in range" and advice.of_epoch(22) == "over"
    assert "given" in advice.text and advice.changes


def test_never_before_the_epoch_that_was_asked_for():
    made = measured(U_SHAPED, noise=0.0005)
    assert advise(made, StopConfig(min_epochs=20)).over and not advise(made, StopConfig(min_epochs=30)).over


def test_noise_alone_is_nothing_learned():
    advice = advise(measured([1.0] * 15, noise=0.05))
    assert advice.verdict == "unclear" and not advice.over and "beyond noise" in advice.text


def test_few_pictures_make_it_unsure():
    made = [*falling(15), *[0.5] * 10]
    assert advise(measured(made, noise=0.001, pictures=8)).sure == "sure"
    assert advise(measured(made, noise=0.001, pictures=4)).sure == "fairly sure"
    two = advise(measured(made, noise=0.001, pictures=2))
    assert two.sure == "unsure" and "2 held-out pictures cannot tell much" in two.text


def test_without_held_out_pictures_it_says_what_it_cannot_know():
    advice = advise(measured(falling(10), train=falling(10, 0.2), pictures=0))
    assert advice.verdict == "unclear" and advice.best == 0 and "by heart" in advice.text
    flat = advise(measured([1.0] * 10, train=[1.0 + 0.01 * (n % 2) for n in range(10)], pictures=0))
    assert flat.verdict == "under"


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_on_recorded_runs_it_never_contradicts_itself(path):
    """What it finds is judged in tests/bench/sweet; here: at every moment of a run it says something that holds."""
    found = [one for one in map(_measured, json.loads(path.read_text())["measured"]) if one.train]
    for count in range(len(found) + 1):
        advice = advise(found[:count])
        assert isinstance(advice, Advice) and advice.text
        assert (advice.best == 0) or 0 < advice.first <= advice.best <= advice.last <= found[count - 1].epoch
        assert not advice.over or advice.verdict == "over"


def _measured(values):
    def tuples(value):
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return Measured(**{name: tuples(value) for name, value in values.items()})


def test_a_run_is_stopped_when_its_best_epochs_are_over_and_goes_on_when_asked(tmp_path, monkeypatch):
    def scripted(found, stop):
        epoch = found[-1].epoch
        return Advice("over", 2, 3, 2, over=True) if epoch >= 5 else Advice("in range", 1, max(1, epoch), 1)

    monkeypatch.setattr("engine.training.measurer.advise", scripted)
    config = pocket_config(
        tmp_path,
        training={"epochs": 9},
        validation={"folder": DEMO / "held_out", "every_epochs": 1, "budget": 100.0},
        stop={"mode": "stop"},
    )
    run = finish(Run(config))
    assert run.exit_reason == "stopped", told(run, RunFailed)
    last, done = told(run, Advised)[-1], told(run, RunDone)[-1]
    assert last.over and last.verdict == "over" and last.epoch == done.epoch == 5
    assert [event.epoch for event in told(run, StopPlanned)] == [5]
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "finished" and told(again, RunDone)[-1].epoch == 9
    assert not told(again, StopPlanned) and not told(again, Advised)
    assert [m.epoch for m in told(again, Measured)] == [6, 7, 8, 9]
    only_told = config.model_copy(update={"stop": config.stop.model_copy(update={"mode": "advise"})})
    assert finish(Run(only_told)).exit_reason == "finished"
