"""The advisor on curves made by hand, and in a run that it ends."""

import random
from dataclasses import replace

import pytest
from pocket import finish, measuring, pocket_config, submit_after, told
from safetensors.torch import load_file

from engine.commands import StopAtEpoch
from engine.config import StopConfig
from engine.events import Advised, Measured, RunDone, RunFailed, StepDone, StopPlanned
from engine.run import Run, open_run
from engine.training.advisor import Advice, advise, curve


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
                0.04 * (1 - 0.7**number),
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


def test_a_rise_within_noise_is_not_over():
    made = [*falling(14), *(0.505 + 0.01 * (number % 2) for number in range(10))]
    assert not advise(measured(made, noise=0.02)).over
    assert advise(measured(U_SHAPED, noise=0.0005), StopConfig(worse_by=0.2)).over
    assert not advise(measured(U_SHAPED, noise=0.0005), StopConfig(worse_by=0.9)).over


def test_a_rise_while_ordinary_prompts_stay_is_not_over():
    made = measured(U_SHAPED, noise=0.0005)
    still = [replace(one, drift=one.drift / 2) for one in made]
    assert advise(made).over and not advise(still).over
    assert advise([replace(one, drift=None) for one in made]).over  # not measured: the loss alone has to say it


def test_few_pictures_need_twice_the_patience():
    made = [*falling(12), 0.51, *[0.68] * 9]

    def first_over(pictures: int) -> int:
        steps = (measured(made[:end], noise=0.0005, pictures=pictures) for end in range(13, len(made) + 1))
        return next(number for number, found in enumerate(steps) if advise(found).over)

    bottom = 11
    assert (first_over(8) + 12 - bottom, first_over(4) + 12 - bottom) == (3, 6)


def test_a_steep_rise_is_told_sooner_than_a_slow_one():
    def first_over(rise: float) -> int:
        made = [*falling(12), *(0.5 + rise * number for number in range(1, 30))]
        steps = (measured(made[:end], noise=0.02) for end in range(13, len(made) + 1))
        return next(number for number, found in enumerate(steps) if advise(found).over)

    assert first_over(0.08) < first_over(0.02)


def test_among_equals_the_earlier_ones_are_advised_and_drift_counts():
    """Held-out loss is flat from epoch 8 on: what moves the model further is advised against."""
    flat = [1.0 - 0.06 * min(number, 8) for number in range(41)]
    calm = advise(measured(flat, noise=0.004))
    far = [replace(one, drift=0.3 * max(0, one.epoch - 12) / 28 + 0.01) for one in measured(flat, noise=0.004)]
    assert calm.first < 20 and calm.last - calm.first == 9
    assert advise(far).last < calm.last


def test_samples_that_grow_stronger_pull_the_range_later():
    flat = [1.0 - 0.06 * min(number, 8) for number in range(41)]
    stalled = advise(measured(flat, noise=0.004, train=flat))
    growing = advise(measured(flat, noise=0.004, train=[1.0 - 0.018 * number for number in range(41)]))
    assert growing.best > stalled.best + 5


def test_every_epoch_has_a_verdict_that_fits_the_whole():
    over = advise(measured([*U_SHAPED, *[0.74] * 6], noise=0.0005))
    told = [over.of_epoch(epoch) for epoch in range(1, 40)]
    assert told == ["under"] * (over.first - 1) + ["in range"] * (over.last + 1 - over.first) + ["over"] * (
        39 - over.last
    )
    flat = advise(measured([*falling(12), *[0.5] * 29], noise=0.002))
    assert {flat.of_epoch(epoch) for epoch in range(flat.first, 41)} == {"in range"}
    # Measured every second epoch: one in between is as the one before it.
    sparse = advise([replace(one, epoch=2 * one.epoch) for one in measured(U_SHAPED, noise=0.0005)])
    assert all(sparse.of_epoch(epoch + 1) == sparse.of_epoch(epoch) for epoch in range(sparse.last + 2, 46, 2))
    early = advise(measured(falling(3)))
    assert {early.of_epoch(epoch) for epoch in range(9)} == {"unclear"}
    still = advise(measured(falling(9)))
    assert still.of_epoch(1) == "under" and still.of_epoch(still.last) == "in range" and still.verdict == "under"


def test_five_hundred_measurements_are_judged_one_by_one():
    """As the epochs screen asks: the advice once, then every epoch."""
    draw = random.Random(8)
    made = [0.5 + 0.5 * 0.98**n + max(0, n - 300) * 0.001 + draw.gauss(0, 0.002) for n in range(501)]
    advice = advise(measured(made, noise=0.002))
    told = [advice.of_epoch(epoch) for epoch in range(1, 501)]
    assert advice.over and advice.last - advice.first == 124 and 150 < advice.best < 330
    assert told == sorted(told, key=["under", "in range", "over"].index) and set(told) == {
        "under",
        "in range",
        "over",
    }


def test_noise_alone_is_nothing_learned():
    advice = advise(measured([1.0] * 15, noise=0.05))
    assert advice.verdict == "unclear" and not advice.over and "beyond noise" in advice.text


def test_few_pictures_make_it_unsure():
    made = [*falling(15), *[0.5] * 10]
    assert advise(measured(made, noise=0.001, pictures=8)).sure == "fairly sure"
    assert advise(measured(made, noise=0.001, pictures=4)).sure == "unsure"
    two = advise(measured(made, noise=0.001, pictures=2))
    assert two.sure == "unsure" and "2 held-out pictures cannot tell much" in two.text


def test_the_training_pictures_speak_alone_where_the_held_out_ones_only_get_worse():
    made = measured([0.5 + 0.01 * n for n in range(20)], noise=0.0005, train=[0.9 * 0.9**n + 0.1 for n in range(20)])
    advice = advise(made)
    assert advice.over and advice.sure == "unsure" and 10 <= advice.best <= 14
    assert not any(advise(made[:count]).over for count in range(15))
    assert "only the training pictures speak" in advice.text and "never been lower" in advice.text


def test_next_time_names_what_the_measurements_point_to():
    def said(values, **given):
        return " ".join(advise(measured(values, **given)).changes)

    assert "Train longer" in said(falling(8))
    assert "epochs are enough" in said(U_SHAPED, noise=0.0005)
    late = [*falling(4, 0.6), *(0.8 + 0.02 * number for number in range(30))]
    assert "half the learning rate leaves" in said(late, noise=0.0005)
    draw = random.Random(5)
    assert "jumps" in said([v + draw.gauss(0, 0.08) for v in [*falling(12), *[0.5] * 20]])
    assert "More pictures" in said(U_SHAPED, noise=0.0005, train=[0.9 * 0.8**n for n in range(24)])
    moved = [replace(one, drift=one.drift * 5) for one in measured(U_SHAPED, noise=0.0005)]
    assert "lora.rank" in " ".join(advise(moved).changes)
    stranger = [
        replace(one, held_out_pictures=(*one.held_out_pictures[:-1], 1.2))
        for one in measured(falling(20), noise=0.001)
    ]
    assert "1 held-out picture of 8 gained nothing" in " ".join(advise(stranger).changes)
    assert "captions" in " ".join(advise(stranger).changes)


def test_without_held_out_pictures_it_says_what_it_cannot_know():
    advice = advise(measured(falling(10), train=falling(10, 0.2), pictures=0))
    assert advice.verdict == "unclear" and advice.best == 0 and "by heart" in advice.text
    flat = advise(measured([1.0] * 10, train=[1.0 + 0.01 * (n % 2) for n in range(10)], pictures=0))
    assert flat.verdict == "under"


def stopping(tmp_path, epochs=9, **changes):
    return pocket_config(
        tmp_path, training={"epochs": epochs}, validation=measuring(tmp_path), stop={"mode": "stop"}, **changes
    )


def scripted(found, stop):
    """Over from the fifth epoch on."""
    epoch = found[-1].epoch
    return Advice("over", 2, 3, 2, over=True) if epoch >= 5 else Advice("in range", 1, max(1, epoch), 1)


def test_a_run_is_stopped_when_its_best_epochs_are_over_and_goes_on_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.measurer.advise", scripted)
    config = stopping(tmp_path)
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
    through = finish(Run(only_told))
    assert through.exit_reason == "finished"
    # The run that stopped itself and went on learned what the one did that never stopped, and measured the same.
    ours, wanted = (load_file(one.folder.lora(0, 0, "final")) for one in (again, through))
    assert ours.keys() == wanted.keys() and all(ours[name].equal(wanted[name]) for name in wanted)
    losses = [{event.step: event.loss for event in told(one, StepDone)} for one in (run, again, through)]
    assert losses[0] | losses[1] == losses[2]
    figures = [
        [(m.epoch, m.held_out, m.train, m.drift) for m in told(one, Measured)] for one in (run, again, through)
    ]
    assert figures[0] + figures[1] == figures[2]


def test_a_stop_planned_for_later_outlives_the_runs_own_and_an_earlier_one_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.measurer.advise", scripted)
    submit_after(monkeypatch, {2: [StopAtEpoch(7)]})
    run = finish(Run(stopping(tmp_path)))
    assert told(run, RunDone)[-1].epoch == 5
    assert [event.epoch for event in told(run, StopPlanned)] == [7, 5, 7]
    again = finish(open_run(run.folder.root))
    assert again.exit_reason == "stopped" and told(again, RunDone)[-1].epoch == 7
    last = finish(open_run(run.folder.root))
    assert last.exit_reason == "finished" and not told(last, StopPlanned)
    submit_after(monkeypatch, {2: [StopAtEpoch(3)]})
    early = finish(Run(stopping(tmp_path)))
    assert told(early, RunDone)[-1].epoch == 3 and told(early, StopPlanned)[-1].epoch == 3


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"patience": 2}, marks=pytest.mark.slow),
        pytest.param({"patience": 4}, marks=pytest.mark.slow),
        {"patience": 2, "min_epochs": 12},
    ],
    ids=str,
)
def test_a_run_waits_as_long_as_it_is_told_to(tmp_path, monkeypatch, rule):
    """The run stops at the first epoch of which the pure advice says so."""
    curve_of = measured([*falling(6), *(0.6 + 0.02 * number for number in range(12))], noise=0.0005)
    monkeypatch.setattr("engine.training.gauge.Gauge.measure", lambda self, subject, step, epoch: curve_of[epoch])
    over = [epoch for epoch in range(1, 15) if advise(curve_of[: epoch + 1], StopConfig(**rule)).over]
    run = finish(Run(stopping(tmp_path, 14).model_copy(update={"stop": StopConfig(mode="stop", **rule)})))
    assert run.exit_reason == "stopped" and told(run, RunDone)[-1].epoch == over[0]
    assert over[0] == max(rule.get("min_epochs", 0), over[0]) and over[0] >= 5 + rule["patience"]
