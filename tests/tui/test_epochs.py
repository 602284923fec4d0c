"""A run's epochs side by side: which there are, with what, and what the advisor says of each."""

from __future__ import annotations

from pathlib import Path

from engine.events import CheckpointSaved, Entry, Event, Measured, RunStarted, SampleSaved
from tui.epochs import advice_of, epoch_rows, grid_of, prompts_of
from tui.judged import Judged
from tui.view import RunView, fold


def folded(*events: Event) -> RunView:
    view = RunView()
    for number, event in enumerate(events, 1):
        fold(view, Entry(number, 1000.0 + number, event))
    return view


def u_curve(epochs: int = 20, bottom: int = 8) -> list[Event]:
    """A loss on held-out pictures with a bottom, and a training loss that only falls."""
    return [
        Measured(
            4 * epoch, epoch,
            held_out=(1.0 + 0.01 * (epoch - bottom) ** 2,) * 2,
            held_out_pictures=(1.0,) * 8,
            train=(2.0 - 0.05 * epoch,),
            drift=0.01 * epoch,
        )
        for epoch in range(epochs + 1)
    ]  # fmt: skip


def test_rows_have_what_there_is_of_each_epoch(tmp_path: Path) -> None:
    view = folded(
        *u_curve(),
        *(CheckpointSaved(f"/elsewhere/cat-e{e:04d}.safetensors", 4 * e, e, "epoch", 10) for e in (2, 8, 16)),
        CheckpointSaved("/elsewhere/cat-by-hand.safetensors", 34, 9, "manual", 10),
        *(SampleSaved(f"{e}-0.png", 4 * e, e, 0, "a cat", 1, "caption") for e in (0, 8)),
    )
    judged = Judged().with_opinion(8, stars=5)
    rows = {row.epoch: row for row in epoch_rows(view, tmp_path, judged, advice_of(view))}
    assert sorted(rows) == list(range(21))
    assert rows[0].verdict == "" and rows[0].files == ()
    assert rows[2].files == (tmp_path / "cat-e0002.safetensors",)
    assert rows[9].files == (tmp_path / "cat-by-hand.safetensors",)
    assert rows[8].opinion.stars == 5 and rows[8].measured is not None
    assert (rows[1].verdict, rows[8].verdict, rows[20].verdict) == ("under", "in range", "over")


def test_a_resumed_run_forgets_what_it_does_again() -> None:
    view = folded(*u_curve(), RunStarted("cat", "/runs/cat", "flux", "dev", 20, 80, 8, resumed_step=40))
    assert [one.epoch for one in view.measured] == list(range(11))


def test_pictures_stand_by_epoch_prompt_and_strength() -> None:
    samples = [
        SampleSaved("a.png", 4, 1, 0, "a cat", 7, "caption"),
        SampleSaved("b.png", 4, 1, 0, "a cat", 7, "caption", 0.6),
        SampleSaved("c.png", 4, 1, 1, "a dog", 8, "no trigger"),
    ]
    view = folded(*samples)
    assert view.samples == samples
    assert grid_of(view.samples) == {(1, 0, 1.0): samples[0], (1, 0, 0.6): samples[1], (1, 1, 1.0): samples[2]}
    assert [(one.index, one.text, one.kind) for one in prompts_of(samples)] == [
        (0, "a cat", "caption"), (1, "a dog", "no trigger"),
    ]  # fmt: skip
