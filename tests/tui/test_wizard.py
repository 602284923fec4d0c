"""The wizard's logic without a screen: what is kept, fixed and given back, words, bars, lengths, the pilot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from made_up import LARGE, NO_GPU, SHARED, UNEQUAL, MadeUp
from pocket import pictures, pocket_config

from engine.config import RunConfig
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Scan, collect
from profiles.job import job_for
from profiles.machine import imagined_machine
from profiles.measured import Measured, Measurement, arithmetic
from profiles.schema import Fit, Settings, Wishes
from profiles.solve import solve
from tui.setup import choices
from tui.setup.form import SetupForm
from tui.view import RunView
from tui.wizard import answers, lengths, pages, pilot, suitability, summary
from tui.wizard.asked import question
from tui.wizard.memory import bars_of, kind_of
from tui.wizard.options import options_of, value_of
from tui.wizard.planner import Place
from tui.wizard.profiles import Profiles

NOW = datetime(2026, 11, 29, 22, 0)


def answered(**given: str) -> dict[str, str]:
    """Answers with these given."""
    found = dict(given)
    answers.begin(found)
    return found


def fit_on(place: Place, fixed: Mapping[str, Any] | None = None, side: int = 1024) -> Fit:
    """The made-up planner's answer."""
    job = job_for(resolution=side)
    return MadeUp((place,)).solve(job, place.machine, Wishes(), fixed or {}, Settings())


@pytest.fixture
def form(tmp_path: Path) -> SetupForm:
    """A form with a dataset."""
    form = SetupForm(tmp_path, {})
    form.values |= {"folder": "image", "trigger": "zorple"}
    return form


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """What is in that dataset."""
    decoder = Decoder()
    config = pocket_config(tmp_path, dataset={"folders": [{"path": pictures(tmp_path / "image", 16)}]})
    found = collect(config.dataset, decoder)
    decoder.close()
    return found


def test_what_was_chosen_is_in_the_configuration_and_the_form(form: SetupForm) -> None:
    choices.take(form.values, {"memory.precision": "fp8", "training.batch_size": 2, "memory.blocks_to_swap": 0}, {})
    config = form.check().config
    assert config is not None
    assert (config.memory.precision, config.training.batch_size, form.values["batch"]) == ("fp8", 2, "2")
    assert "blocks_to_swap" not in form.check().text  # the default is not written
    assert choices.fixed(form.values) == {}
    form.choose_base("files")
    assert "precision" not in form.check().text


def test_a_field_changed_after_the_choice_is_the_users(form: SetupForm) -> None:
    choices.take(form.values, {"training.batch_size": 2, "memory.precision": "fp8"}, {})
    form.values["batch"] = "4"
    assert choices.fixed(form.values) == {"training.batch_size": 4}
    choices.take(form.values, {"training.batch_size": 4, "memory.precision": "int8"}, choices.fixed(form.values))
    assert choices.fixed(form.values) == {"training.batch_size": 4}
    choices.give_back(form.values, "training.batch_size")
    assert choices.fixed(form.values) == {} and form.values["batch"] == "4"
    choices.fix(form.values, "memory.precision", "nf4")
    choices.fix(form.values, "lora.rank", 32)
    assert choices.fixed(form.values) == {"memory.precision": "nf4"} and form.values["rank"] == "32"
    form.choose_preset("style")
    assert choices.fixed(form.values) == {"memory.precision": "nf4"}


def test_damaged_choices_are_none(form: SetupForm) -> None:
    form.values |= {choices.CHOSEN: "[1", choices.FIXED: "3"}
    assert choices.fixed(form.values) == {} and form.check().config is not None


def test_taking_an_answer_over_asks_nothing_new(form: SetupForm, scan: Scan) -> None:
    given = answered(done="07:00")
    checked = form.check()
    asked = question(form, checked, scan, given, "cuda:0", NOW)
    assert asked is not None and asked.wishes.done_in_s == 9 * 3600
    changes = {"memory.precision": "int8", "training.batch_size": 4, "training.accumulation": 2,
               "optimizer.name": "adafactor", "training.device": "cuda:0"}  # fmt: skip
    choices.take(form.values, changes, asked.fixed)
    again = question(form, form.check(), scan, given, "cuda:0", NOW.replace(minute=5))
    assert again is not None and again.key(form.check().table) == asked.key(checked.table)
    form.values["rank"] = "4"
    other = question(form, form.check(), scan, given, "cuda:0", NOW)
    assert other is not None and other.key(form.check().table) != asked.key(checked.table)


def test_a_batch_typed_before_anything_was_chosen_is_fixed(form: SetupForm, scan: Scan) -> None:
    form.values["batch"] = "3"
    asked = question(form, form.check(), scan, answered(), "cpu", NOW)
    assert asked is not None and asked.fixed == {"training.batch_size": 3} and asked.start.batch == 8


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0.0), ("22:30", 1800), ("07:00", 32400), ("8h", 28800), ("1.5 hours", 5400)]
)
def test_times_are_understood(text: str, seconds: float) -> None:
    assert answers.wishes_of(answered(done=text), NOW).done_in_s == seconds


@pytest.mark.parametrize("name", ["leave", "price", "done"])
@pytest.mark.parametrize("text", ["soon", "25:00", "-1", "1e9", "0h", "1.2.3"])
def test_wrong_answers_are_told_and_left_out(name: str, text: str) -> None:
    given = answered(**{name: text})
    assert answers.problems_of(given, NOW)[name].kind == "bad"
    assert answers.wishes_of(given, NOW) == Wishes() and answers.price_of(given) == 0


def test_a_session_of_another_version_is_mended() -> None:
    given = answered(aim="wildest", nf4="perhaps")
    assert (given["aim"], given["nf4"]) == ("balanced", "yes")
    assert pages.number_of("gone") == 0 and pages.page_of("name") == len(pages.PAGES) - 1


@pytest.mark.parametrize(
    ("want", "kind"), [("character", "good"), ("several", "changed"), ("lettering", "bad"), ("", "")]
)
def test_some_answers_lead_away(want: str, kind: str) -> None:
    assert suitability.verdict({"want": want}).kind == kind
    assert suitability.verdict({"want": want, "count": "few"}).kind == "bad"


@pytest.mark.parametrize("place", [NO_GPU[0], SHARED[0], *UNEQUAL, LARGE[0]], ids=lambda place: place.name)
def test_bars_add_up(place: Place) -> None:
    fit = fit_on(place)
    bars = bars_of(fit, place.machine)
    assert len(bars) == (1 if place.machine.card is None else len(fit.forecast.stages) + 1)
    for bar in bars:
        parts = dict(bar.parts)
        assert sum(parts.values()) == pytest.approx(max(bar.total_gb, bar.used_gb))
        assert sum(gb for kind, gb in parts.items() if kind != "free") == pytest.approx(bar.used_gb)
    marked = [bar for bar in bars if bar.peak]
    assert [bar.label for bar in marked] == ([] if place.machine.card is None else ["training"])


def test_a_bar_goes_over_its_limit_exactly_where_it_does_not_fit() -> None:
    for swap in (0, 57):
        fit = fit_on(SHARED[0], {"memory.blocks_to_swap": swap})
        assert any(bar.over for bar in bars_of(fit, SHARED[0].machine)) != fit.fits


def test_the_parts_of_a_real_forecast_are_all_known() -> None:
    fit = solve(job_for(), imagined_machine(gpu_name="RTX 4090"), alternatives=False)
    kinds = {part: kind_of(part) for stage in fit.forecast.stages for part in stage.vram}
    wanted = {"weights": "weights", "adapter": "LoRA", "optimizer": "LoRA", "activations": "activations",
              "working": "activations", "T5": "weights", "CLIP": "weights", "autoencoder": "weights",
              "context": "context"}  # fmt: skip
    assert {part: kind for part, kind in kinds.items() if part in wanted} == wanted
    assert {kind for part, kind in kinds.items() if part not in wanted} == {"buffers"}


def test_every_value_of_a_real_solution_can_be_stepped_through_and_read_back() -> None:
    fit = solve(job_for(), imagined_machine(gpu_name="RTX 3060 12 GB"))
    for reasoned in fit.reasons:
        values = dict(options_of(reasoned))
        assert len(values) > 1 or not reasoned.key
        if reasoned.key:
            assert all(summary.plain(other.value) in values for other in reasoned.alternatives)
            assert any(value_of(reasoned, text) == reasoned.value for text in values)


def test_words_for_spans() -> None:
    spans = {40: "40 s", 600: "10 min", 3600: "1 h", 8100: "2 h 15 min", 86_400: "1 day", 190_000: "2 days 4 h"}
    assert {seconds: summary.about(seconds) for seconds in spans} == spans


def test_cost_and_time_are_told() -> None:
    lines = dict(summary.figures(fit_on(LARGE[0]), LARGE[0].machine, 2.5, NOW))
    assert lines["cost"].endswith("at 2.5 an hour") and "done 22:" in lines["whole run"]
    assert "cost" not in dict(summary.figures(fit_on(LARGE[0]), LARGE[0].machine, 0, NOW))


def test_the_commands_say_wishes_and_what_is_fixed() -> None:
    given = answered(aim="fastest", leave="2", done="07:00", nf4="no", price="0.5")
    fixed = {"memory.modulation_cache": True, "memory.blocks_to_swap": 8}
    plan, train = summary.commands("my cat.toml", given, fixed, NOW)
    assert plan == (
        "kiln plan 'my cat.toml' --aim fastest --no-nf4 --leave 2 --done-by 07:00 --price 0.5 "
        "--set memory.modulation_cache=true --set memory.blocks_to_swap=8"
    )
    assert train == "kiln train 'my cat.toml' --ui"
    assert summary.commands("cat.toml", answered(done="2h"), {}, NOW)[0] == "kiln plan cat.toml --done-by 00:00"


def test_lengths_follow_the_number_of_pictures_while_nobody_said_more(form: SetupForm, scan: Scan) -> None:
    form.choose_base("files")
    given: dict[str, str] = {}
    assert lengths.follow(form, given, scan.samples)
    assert (form.values["repeats"], form.values["epochs"], form.values["save_every"]) == ("5", "20", "2")
    assert not lengths.follow(form, given, scan.samples)
    assert lengths.follow(form, given, scan.samples[:10])
    assert (form.values["repeats"], form.values["epochs"]) == ("10", "12")
    form.values["epochs"] = "13"
    assert not lengths.follow(form, given, scan.samples)
    assert form.values["epochs"] == "13"


def test_a_pilot_is_short_and_apart(tmp_path: Path) -> None:
    config = pocket_config(tmp_path, saving={"every_steps": 5}, name="n" * 80)
    trial = pilot.pilot_of(config, 40)
    assert trial.training.steps == 40 and trial.training.epochs == config.training.epochs
    assert len(trial.name) == 80 and trial.name.endswith("-pilot") and trial.cache_dir == config.cache_dir
    assert pilot.is_pilot(trial.runs_dir / trial.name) and not pilot.is_pilot(config.runs_dir / config.name)
    assert trial.saving.every_steps == 0
    assert RunConfig.model_validate(trial.model_dump()) == trial


def test_a_pilot_takes_a_few_minutes() -> None:
    fit = fit_on(UNEQUAL[0])
    assert 100 < pilot.steps_for(fit) < 180  # of 1.3 s
    assert pilot.steps_for(fit, minutes=0.01) == pilot.LEAST
    assert pilot.steps_for(fit, minutes=1e6) == min(pilot.MOST, fit.forecast.steps)
    assert "no step" in pilot.told("cat-pilot", RunView(), "1.30 s")


def test_a_pilot_draws_twice_however_often_the_run_does() -> None:
    fit = fit_on(UNEQUAL[0])
    stages = [replace(stage, times=20) if stage.name == "sample" else stage for stage in fit.forecast.stages]
    fit = replace(fit, forecast=replace(fit.forecast, stages=tuple(stages)))
    once = sum(stage.seconds for stage in stages if stage.name not in ("train", "sample"))
    whole = once + fit.forecast.stage("sample").seconds / 10 + 140 * fit.forecast.step_s
    assert pilot.seconds_for(fit, 140) == pytest.approx(whole)


def test_what_is_not_downloaded_yet_is_planned_as_published(form: SetupForm, scan: Scan) -> None:
    form.choose_base("files")
    checked = form.check()
    assert checked.config is None
    asked = question(form, checked, scan, answered(), "cuda:0", NOW)
    assert asked is not None
    job = Profiles().job(asked.config, scan)
    assert job.model == job_for("flux1-dev").model
    form.values["rank"] = "x"
    assert question(form, form.check(), scan, answered(), "cuda:0", NOW) is None


def test_this_machine_can_be_read_and_planned_for(form: SetupForm, scan: Scan) -> None:
    planner = Profiles()
    places = planner.places(form.folder / "cache", form.folder / "runs")
    asked = question(form, form.check(), scan, answered(), places[0].device, NOW)
    assert asked is not None
    fit = planner.solve(planner.job(asked.config, scan), places[0].machine, asked.wishes, asked.fixed, asked.start)
    assert fit.fits and fit.forecast.steps == 48
    assert places[0].sentence and all(place.name for place in places)


def test_what_earlier_runs_needed_on_this_machine_counts(
    form: SetupForm, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # other tests' runs are newer than this one's
    planner = Profiles()
    place = planner.places(form.folder / "cache", form.folder / "runs")[0]
    asked = question(form, form.check(), scan, answered(), place.device, NOW)
    assert asked is not None
    job = planner.job(asked.config, scan)
    before = planner.solve(job, place.machine, asked.wishes, asked.fixed, asked.start)
    same, at = before.settings, NOW.timestamp()
    kind = same.precision, same.compute, same.checkpointing, same.blocks_to_swap > 0
    made = Measurement(*kind, step_s=3.0, step_forecast_s=1.0, at=at, arithmetic=arithmetic())
    Measured().add(place.machine, made)
    fixed = {key: value for key, value in before.changes().items() if key}
    after = planner.solve(job, place.machine, asked.wishes, fixed, asked.start)
    assert after.forecast.step_s == pytest.approx(3.0 * before.forecast.step_s, rel=0.01)
    told = planner.places(form.folder / "cache", form.folder / "runs")[0].machine.remarks
    assert any("corrected by 1 measurement" in remark for remark in told)
