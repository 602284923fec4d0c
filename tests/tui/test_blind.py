"""Blind comparisons: which pairs are shown, how answers count, and what is said of them."""

from __future__ import annotations

from random import Random

from engine.events import SampleSaved
from engine.training.advisor import Advice
from tui.blind import ROUND, candidates, counted, luck, pairings, told
from tui.epochs import grid_of
from tui.judged import Judged

NO_RANGE = Advice("unclear")


def drawn(epochs: list[int], prompts: int = 3, seed: int = 7) -> list[SampleSaved]:
    return [SampleSaved(f"{e}-{i}.png", e, e, i, f"prompt {i}", seed) for e in epochs for i in range(prompts)]


def test_candidates_are_saved_epochs_in_and_around_the_range() -> None:
    grid = grid_of(drawn([0, 2, 4, 6, 8, 10, 12]))
    saved = [2, 4, 6, 8, 10, 12]
    assert candidates(saved, grid, Advice("over", first=5, last=8, best=6)) == [4, 6, 8, 10]
    assert candidates(saved, grid, NO_RANGE) == saved
    assert candidates([2, 3], grid, Advice("over", first=9, last=9, best=9)) == [2]
    assert candidates([2, 12], grid, Advice("over", first=12, last=13, best=12)) == [2, 12]


def test_a_round_shows_every_epoch_about_as_often_with_random_sides() -> None:
    grid = grid_of(drawn([2, 4, 6, 8], prompts=6))
    pairs = pairings(grid, [2, 4, 6, 8], Random(3))
    assert len(pairs) == ROUND
    shown = [one.epoch for pair in pairs for one in (pair.left, pair.right)]
    assert {epoch: shown.count(epoch) for epoch in (2, 4, 6, 8)} == dict.fromkeys((2, 4, 6, 8), ROUND // 2)
    assert all(pair.left.index == pair.right.index and pair.left.epoch != pair.right.epoch for pair in pairs)
    sides = [pair.left.epoch < pair.right.epoch for pair in pairs]
    assert True in sides and False in sides
    assert pairs == pairings(grid, [2, 4, 6, 8], Random(3)), "chance comes from outside"


def test_only_pictures_of_one_seed_and_prompt_are_compared() -> None:
    grid = grid_of([*drawn([2], prompts=2), *drawn([4], prompts=1), SampleSaved("4-1.png", 4, 4, 1, "prompt 1", 8)])
    assert [(pair.left.index, pair.right.index) for pair in pairings(grid, [2, 4], Random(0))] == [(0, 0)]
    assert pairings(grid, [2], Random(0)) == []


def test_answers_count_for_the_epoch_behind_the_side() -> None:
    pair = pairings(grid_of(drawn([2, 4], prompts=1)), [2, 4], Random(0))[0]
    left, right = pair.left.epoch, pair.right.epoch
    judged = counted(counted(Judged(), pair, "1"), pair, "2")
    assert (judged.of(left).wins, judged.of(left).shown) == (judged.of(right).wins, judged.of(right).shown) == (1, 2)
    judged = counted(judged, pair, "same")
    assert (judged.of(left).wins, judged.of(left).shown, judged.of(right).shown) == (1, 3, 3)


def test_luck_is_the_one_sided_sign_test() -> None:
    assert luck(0, 5) == 1.0
    assert luck(5, 5) == 1 / 32
    assert luck(7, 8) == 9 / 256


def test_too_few_a_draw_and_a_preference_are_told_apart() -> None:
    def said(wins: int, shown: int) -> str:
        others = Judged().with_opinion(3, shown=shown - wins)
        return told(others.with_opinion(8, wins=wins, shown=shown))

    assert told(Judged()) == ""
    assert "Epoch 8 leads with 3 of 4" in said(3, 4) and "too few" in said(3, 4)
    assert "no preference is shown yet" in said(6, 10)
    assert "you do prefer it" in said(11, 12)
