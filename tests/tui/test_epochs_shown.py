"""What the epochs screen draws from: the cursor stays, curves are those measured, the nearest caption is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_epochs import PROMPTS, make_run

from engine.events import Measured, NearCopy
from tui.epochs import Prompt
from tui.epochs_own import OwnPictures, own_pictures
from tui.epochs_shown import Around, Shown, gather, read_around, rejudged, told_row
from tui.judged import Judged
from tui.run_list import read_view
from tui.widgets.epoch_grid import plan_for
from tui.widgets.epoch_plot import MOST_LINES, lines_of, score_lines


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    root = make_run(tmp_path, strengths=(0.6, 1.0))
    return gather(read_view(root), root, Judged(), read_around(root), None)


def test_the_cursor_begins_at_the_advised_epoch_and_stays(shown: Shown) -> None:
    assert shown.epoch == shown.advice.best != 0
    view = read_view(shown.folder)
    moved = replace(shown.at_epoch(9), untouched=False)
    view.measured = view.measured[3:]
    view.samples = [sample for sample in view.samples if sample.epoch > 3]
    again = gather(view, shown.folder, Judged(), Around(), moved)
    assert again.epoch == 9 and again.version > shown.version
    assert again.rows[0].epoch == 2, "what was saved stands by itself"
    assert gather(view, shown.folder, Judged(chosen=10), Around(), None).epoch == 10
    assert gather(view, shown.folder, Judged(), Around(), shown.at_epoch(0)).epoch != 0, "nobody moved it there"
    assert not rejudged(shown, Judged(chosen=2)).untouched
    assert shown.moved(-5).epoch == 0 and shown.moved(99).epoch == 12
    assert shown.at_epoch(99).epoch == 12


def test_an_empty_run_has_nothing_under_the_cursor(tmp_path: Path) -> None:
    empty = gather(read_view(tmp_path), tmp_path, Judged(), read_around(tmp_path), None)
    assert (empty.epoch, empty.row, empty.current_prompt, empty.drawn) == (-1, None, None, ())
    assert empty.moved(3).epoch == -1


def test_columns_and_strengths_are_those_drawn(shown: Shown) -> None:
    assert shown.drawn == (0, 2, 4, 6, 8, 10, 12)
    assert shown.strengths == [0.6, 1.0]
    assert [prompt.kind for prompt in shown.prompts] == [kind for _, kind in PROMPTS]


def test_only_files_that_are_there_count(shown: Shown) -> None:
    row = next(row for row in shown.rows if row.epoch == 4)
    assert [path.name for path in shown.files_of(row)] == ["cat-e0004.safetensors"]
    assert replace(shown, files=frozenset()).files_of(row) == []


def test_opinions_change_rows_only(shown: Shown) -> None:
    judged = Judged(chosen=6).with_opinion(6, stars=4, note="good", obeys="partly", wins=2, shown=3)
    after = rejudged(shown.at_epoch(6), judged)
    assert after.row is not None and after.row.opinion.stars == 4 and after.version != shown.version
    told = told_row(after, after.row)
    assert f"epoch 6, {after.row.verdict}, held-out" in told and "4 of 5 stars" in told and "won 2 of 3" in told
    assert "taken along" in told and "obeys: partly" in told
    assert told_row(shown, shown.rows[0]).startswith("base model, held-out")
    assert "no file (saved: 4 and 6)" in told_row(shown, shown.rows[5])
    assert "no file" not in told_row(shown, shown.rows[4])


def test_the_nearest_caption_shares_most_and_what_is_rare(shown: Shown) -> None:
    assert [names(shown.own, index)[0] for index in range(3)] == ["0.png", "2.png", "1.png"]
    assert all(sorted(names(shown.own, index)) == ["0.png", "1.png", "2.png"] for index in range(3))
    captions = [(Path(name), text) for name, text in (("a", "a cat on a mat"), ("b", "a cat"), ("c", "a dog runs"))]
    prompts = [Prompt(0, "A CAT on a sofa", "", 1), Prompt(1, "the dog", "", 1), Prompt(2, "nothing", "", 1)]
    own = own_pictures(prompts, captions)
    assert [names(own, index) for index in range(4)] == [["a", "b", "c"], ["c", "a", "b"], ["a", "b", "c"], []]
    assert own.at(0, 0) == captions[0] and own.at(0, 3) is own.at(0, -1) is None
    assert own.paths == {"a", "b", "c"}


def names(own: OwnPictures, prompt: int) -> list[str]:
    """The pictures' names in the order for a prompt."""
    return [found[0].name for place in range(len(own)) if (found := own.at(prompt, place)) is not None]


def test_the_loss_is_drawn_over_its_bars_over_the_training_loss() -> None:
    measured = [Measured(4 * e, e, held_out=(1.0 - e, 1.2 - e), train=(0.5,)) for e in range(3)]
    training, bars, held = lines_of(measured, 0)
    assert (training.name, held.name) == ("training", "held-out")
    assert held.y == pytest.approx((1.1, 0.1, -0.9)) and training.y == (0.5, 0.5, 0.5)
    assert bars.x == (0, 0, 1, 1, 2, 2) and bars.y[:2] == pytest.approx((1.0, 1.2)) and not bars.joined
    single = lines_of([Measured(4, 1, held_out=(1.0,))], 0)
    assert [line.name for line in single] == ["held-out"], "one noise has no spread"


def test_bands_are_told_against_their_own_beginning() -> None:
    tables = [(1.0, 2.0, 4.0), (0.5, 2.2, 4.0)]
    measured = [Measured(e, e, held_out=(1.0,), held_out_bands=bands) for e, bands in enumerate(tables)]
    low, middle, high = lines_of(measured, 1)
    assert (low.y, high.y) == ((100.0, 50.0), (100.0, 100.0)) and middle.y == pytest.approx((100.0, 110.0))
    assert lines_of([Measured(1, 1, train=(1.0,), train_bands=(1.0, 1.0, 1.0))], 1)[0].y == (100.0,)
    assert lines_of([Measured(1, 1, train=(1.0,))], 1) == []


def test_drift_and_the_largest_updates_are_drawn_where_measured() -> None:
    kinds = tuple((f"k{number}", float(number)) for number in range(8))
    measured = [Measured(1, 1, drift=0.02, update=kinds), Measured(2, 2)]
    assert lines_of(measured, 2)[0].y == (2.0,)
    assert [line.name for line in lines_of(measured, 3)] == ["k7", "k6", "k5", "k4"][:MOST_LINES]
    assert lines_of([Measured(2, 2)], 2) == lines_of([Measured(2, 2)], 3) == []


def test_scores_are_means_of_an_epochs_pictures_and_copies_are_counted(shown: Shown) -> None:
    view = read_view(shown.folder)
    full = [sample for sample in view.samples if sample.strength == 1.0 and sample.epoch in (2, 4)]
    view.samples = [replace(sample, path=f"{number}.png") for number, sample in enumerate(full)]
    for number, sample in enumerate(view.samples):
        view.scores[sample.path] = {"clip_image": 0.5 + 0.1 * (number % 3), "dino": 0.2}
    view.near_copies["0.png"] = NearCopy("0.png", "a.png", 0.01)
    after = gather(view, shown.folder, Judged(), Around(), None)
    assert dict(after.copies) == {2: 1}
    image, dino = score_lines(after.scored)
    assert image.x == dino.x == (2.0, 4.0) and image.y == pytest.approx((0.6, 0.6)) and "CLIP" in image.name
    row = next(row for row in after.rows if row.epoch == 2)
    assert "1 nearly a copy of a training picture" in told_row(after, row)
    assert score_lines(()) == []


@pytest.mark.parametrize(("width", "height"), [(158, 24), (78, 18), (40, 10), (18, 3), (1, 1), (0, 0)])
@pytest.mark.parametrize("lines", [0, 1, 3, 12])
@pytest.mark.parametrize(("drawn", "own"), [(0, 0), (3, 2), (4, 40), (50, 1), (50, 40)])
def test_pictures_fit_their_room(width: int, height: int, lines: int, drawn: int, own: int) -> None:
    plan = plan_for(width, height, lines, drawn, own)
    assert plan.rows >= 1 and plan.down >= 1 and plan.across >= 1 and 0 <= plan.trained <= own
    whole = plan.across + plan.trained
    if own and whole > 1:
        assert plan.trained >= min(own, whole // 4, whole - 1), "some, and all that the epochs leave"
        assert plan.trained >= min(own, whole - drawn, whole - 1)
    if height >= 6 and width >= 20:
        assert plan.down * (plan.rows + 1) + 1 <= height
        assert (plan.across + plan.trained) * (plan.columns + 1) <= width
