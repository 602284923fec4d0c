"""What a view keeps of samples: pictures by strength, scores and near copies, also where steps are done again."""

from __future__ import annotations

from engine.events import Entry, Event, NearCopy, RunStarted, SampleSaved, Scored
from tui.view import RunView, fold

COPY = NearCopy("/r/samples/b.png", "/data/cat\x1b[2J.png", 0.012)


def folded(*events: Event) -> RunView:
    view = RunView()
    for seq, event in enumerate(events, 1):
        fold(view, Entry(seq, 0.0, event))
    return view


def sample(name: str, step: int, epoch: int, strength: float = 1.0) -> SampleSaved:
    return SampleSaved(f"/r/samples/{name}.png", step, epoch, 0, "a cat", 1, "caption", strength)


TOLD: tuple[Event, ...] = (
    RunStarted("cat", "/r", "flux", "dev", 4, 12, 5),
    sample("a", 3, 1),
    Scored("/r/samples/a.png", "clip_image", 0.7),
    sample("b", 6, 2, 0.6),
    Scored("/r/samples/b.png", "clip_image", 0.8),
    Scored("/r/samples/b.png", "dino", 0.5),
    COPY,
)


def test_scores_and_copies_are_kept_by_picture() -> None:
    view = folded(*TOLD)
    assert view.scores == {
        "/r/samples/a.png": {"clip_image": 0.7}, "/r/samples/b.png": {"clip_image": 0.8, "dino": 0.5},
    }  # fmt: skip
    assert view.near_copies == {"/r/samples/b.png": COPY}
    warnings = [line.text for line in view.log if line.level == "warning"]
    assert len(warnings) == 1 and "b.png is nearly a copy" in warnings[0] and "\x1b" not in warnings[0]
    assert any("with strength 0.6" in line.text for line in view.log)


def test_a_picture_that_is_drawn_again_is_judged_again() -> None:
    view = folded(*TOLD, sample("b", 6, 2, 0.6))
    assert set(view.scores) == {"/r/samples/a.png"} and not view.near_copies
    assert [one.strength for one in view.samples] == [1.0, 0.6]


def test_steps_that_are_done_again_take_their_pictures_along() -> None:
    view = folded(*TOLD, RunStarted("cat", "/r", "flux", "dev", 4, 12, 5, resumed_step=3))
    assert [one.step for one in view.samples] == [3]
    assert set(view.scores) == {"/r/samples/a.png"} and not view.near_copies
