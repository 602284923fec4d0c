"""Captioning a set: drafts beside the pictures, pause, stop and going on, memory that runs out, broken pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_bytes import tagger_graph
from pictures import gradient

from engine.caption_job import CaptionJob
from engine.captioners import making
from engine.captioners.answers import MAX_CHARACTERS, cleaned
from engine.captioners.drafts import REFUSED, Draft, draft_path, drafts_of, load_draft, save_draft, size_of
from engine.captioners.making import Control, Subject, caption_pictures
from engine.captioners.request import CaptionRequest
from engine.captioners.word_diff import choices_in, merged, pieces_of
from engine.commands import Pause, Resume, StopNow
from engine.config import DatasetConfig
from engine.dataset.captions import caption_text
from engine.dataset.scan import all_pairs
from engine.errors import DatasetError, EngineError
from engine.events import Event, EventLog, Log, Progress, RunFailed


class Fake:
    """Answers with a picture's size; ``room`` is how many it has memory for."""

    def __init__(self, room: int = 99, words: str = "a picture") -> None:
        self.room, self.words = room, words
        self.batches: list[int] = []
        self.after: Callable[[], None] = lambda: None

    def caption(self, pictures: Sequence[Any], stop: Callable[[], bool]) -> list[str]:
        self.batches.append(len(pictures))
        if len(pictures) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.after()
        return [f"{self.words} {picture.shape[1]}" for picture in pictures]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a tagger: recognised without being loaded."""
    folder = tmp_path / "wd"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(tagger_graph([[0, 0, 0]]))
    (folder / "selected_tags.csv").write_text("name,category\na,0\n")
    return folder


def subjects(folder: Path, count: int = 5, write: bool = False) -> list[Subject]:
    folder.mkdir(exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"p{number}.png"
        gradient(20 + number, 16).save(path)
        found.append(Subject(path, path.name, path.with_suffix(".txt") if write else None))
    return found


def told(events: EventLog, kind: type[Event]) -> list[Any]:
    return [entry.event for entry in events.since(0) if isinstance(entry.event, kind)]


PLAIN = Control()


def work(model: Path, some: list[Subject], fake: Fake, control: Control = PLAIN, **options: Any) -> Any:
    events = EventLog()
    request = CaptionRequest(model, batch_size=options.pop("batch_size", 2), **options)
    outcome = caption_pictures(request, some, events, control, lambda found, request: fake)
    return outcome, events


def test_answers_lie_beside_the_pictures_and_are_no_captions(tmp_path: Path, model: Path) -> None:
    some = subjects(tmp_path / "data", 3)
    (tmp_path / "data" / "p1.txt").write_text("mine\n")
    outcome, events = work(model, some, Fake(), trigger="ohwx")
    assert outcome.complete and outcome.made[some[0].path] == "ohwx, a picture 20"
    drafts = {path.name: draft for path, draft in drafts_of(one.path for one in some)}
    assert isinstance(drafts["p1.png"], Draft) and drafts["p1.png"].text == "ohwx, a picture 21"
    assert (tmp_path / "data" / "p1.txt").read_text() == "mine\n"
    pairs = all_pairs(DatasetConfig.model_validate({"folders": [{"path": tmp_path / "data"}]}), problems := [])
    assert [pair.caption and pair.caption.name for pair in pairs] == [None, "p1.txt", None] and not problems
    assert told(events, Progress)[-1] == Progress("caption", 3, 3, "p2.png")


def test_what_has_its_answer_is_not_asked_again(tmp_path: Path, model: Path) -> None:
    some = subjects(tmp_path / "data")
    first = Fake()
    outcome, _ = work(model, some, first, Control(stop=lambda: len(first.batches) == 2))
    assert not outcome.complete and len(outcome.made) == 4
    second, (outcome, _) = Fake(), work(model, some, again := Fake())
    assert outcome.complete and outcome.known == 4 and again.batches == [1]
    gradient(99, 9).save(some[0].path)  # another picture under the name
    assert work(model, some, second)[0].known == 4
    assert work(model, some, Fake(), trigger="other")[0].known == 0
    assert work(model, some, Fake(), trigger="other", again=True)[0].known == 0


def test_memory_that_runs_out_halves_the_batch_and_says_so(tmp_path: Path, model: Path) -> None:
    fake = Fake(room=2)
    outcome, events = work(model, subjects(tmp_path / "data", 9), fake, batch_size=8)
    assert outcome.complete and len(outcome.made) == 9
    assert fake.batches == [8, 4, 2, 2, 2, 2, 1]
    assert [log.text for log in told(events, Log)] == [
        "Memory ran out with 8 pictures at a time; going on with 4",
        "Memory ran out with 4 pictures at a time; going on with 2",
    ]
    with pytest.raises(EngineError, match="Not enough memory for one picture"):
        work(model, subjects(tmp_path / "more", 2), Fake(room=0))


def test_a_broken_picture_and_an_answer_of_nothing_are_told_and_passed_over(tmp_path: Path, model: Path) -> None:
    some = subjects(tmp_path / "data", 3)
    some[1].path.write_bytes(b"no picture")
    outcome, events = work(model, some, Fake())
    assert sorted(path.name for path in outcome.made) == ["p0.png", "p2.png"]
    assert list(outcome.failed) == [some[1].path] and outcome.complete
    silent = Fake(words="\x00\u202e ")
    silent.caption = lambda pictures, stop: ["\x00 \u202e"] * len(pictures)  # type: ignore[method-assign]
    outcome, _ = work(model, some[:1], silent, trigger="x")
    assert outcome.failed == {some[0].path: "the model said nothing"}
    assert told(events, Log)[-1].level == "warning"


def test_missing_captions_are_written_and_no_others(tmp_path: Path, model: Path) -> None:
    some = subjects(tmp_path / "data", 3, write=True)
    (tmp_path / "data" / "p1.txt").write_text("")
    fake = Fake()
    fake.after = lambda: (tmp_path / "data" / "p2.txt").write_text("written meanwhile\n")
    outcome, _ = work(model, some, fake)
    assert [path.name for path in outcome.written] == ["p0.png"]
    texts = {path.name: path.read_text() for path in (tmp_path / "data").glob("*.txt")}
    assert texts == {"p0.txt": "a picture 20\n", "p1.txt": "", "p2.txt": "written meanwhile\n"}
    verdicts = [draft.verdict for _, draft in drafts_of(one.path for one in some) if isinstance(draft, Draft)]
    assert verdicts == ["taken", "", ""]


def test_a_model_that_fails_is_an_error_in_words(tmp_path: Path, model: Path) -> None:
    broken = Fake()
    broken.caption = lambda pictures, stop: []  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="no answer to each"):
        work(model, subjects(tmp_path / "data", 2), broken)

    def fails(pictures: object, stop: object) -> list[str]:
        raise ValueError("shapes \x1b[31m do not fit\nat all")

    broken.caption = fails  # type: ignore[method-assign]
    with pytest.raises(EngineError) as caught:
        work(model, subjects(tmp_path / "data", 2), broken)
    assert "\x1b" not in str(caught.value) and "do not fit" in caught.value.detail


def test_a_job_pauses_goes_on_and_stops(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    job = CaptionJob(CaptionRequest(model, batch_size=1), subjects(tmp_path / "data", 4))
    fake.after = lambda: job.submit(Pause()) if len(fake.batches) == 2 else None
    monkeypatch.setattr(making, "_load", lambda found, request: fake)
    job.start()
    wait_for(lambda: job.state == "paused")
    assert fake.batches == [1, 1] and job.alive
    fake.after = lambda: job.submit(StopNow())
    job.submit(Resume())
    assert job.join(20) and job.state == "stopped"
    assert len(job.outcome.made) == 3 and not job.outcome.complete


def test_a_job_that_fails_tells_so_in_an_event(tmp_path: Path) -> None:
    job = CaptionJob(CaptionRequest(tmp_path / "none"), [])
    job.start()
    assert job.join(20) and job.state == "failed"
    assert told(job.events, RunFailed)[0].title == "No such folder"


def wait_for(truth: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.005)


DRAFT = Draft("a cat", "wd (tagger)", "general 0.35", 1.5, 3)


def test_a_draft_comes_back_as_it_was_and_damage_is_told(tmp_path: Path) -> None:
    picture = tmp_path / ("é" * 120 + ".png")
    picture.write_bytes(b"123")
    save_draft(picture, DRAFT)
    save_draft(picture, replace(DRAFT, model="other", verdict=REFUSED))
    assert [draft for _, draft in drafts_of([picture])] == [replace(DRAFT, model="other", verdict=REFUSED), DRAFT]
    path = draft_path(picture, DRAFT.model)
    path.write_bytes(path.read_bytes().replace(b"a cat", b"a bat"))
    with pytest.raises(DatasetError, match="damaged"):
        load_draft(path)
    assert [type(draft) for _, draft in drafts_of([picture])] == [Draft, DatasetError]
    picture.write_bytes(b"another one")
    assert [type(draft) for _, draft in drafts_of([picture])] == [DatasetError]
    assert size_of(tmp_path / "none") == -1


def test_drafts_stay_with_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "data" / ".lorakiln").symlink_to(tmp_path / "away")
    with pytest.raises(DatasetError, match="cannot be kept"):
        save_draft(tmp_path / "data" / "a.png", DRAFT)
    assert not list((tmp_path / "away").iterdir())
    assert list(drafts_of([tmp_path / "data" / "a.png"])) == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('  "A cat\n\non a mat."  ', "A cat on a mat."),
        ('"A cat" and "a dog"', '"A cat" and "a dog"'),
        ("a\x00\x1b]52;c;QQ==\x07\u202eb\ud800", "a]52;c;QQ==b"),
        ("\u200b \x07", ""),
        ("word " * 9000, ("word " * 9000)[: MAX_CHARACTERS - 1].rstrip()),
        ("x" * 10**6, "x" * MAX_CHARACTERS),
    ],
    ids=["lines", "quotes", "controls", "nothing", "words", "one-word"],
)
def test_an_answer_becomes_a_line_that_reads_back_as_it_is(answer: str, text: str) -> None:
    assert cleaned(answer) == text
    assert cleaned(text) == text
    assert caption_text(text.encode(), Path("a.txt")) == text
    assert len(cleaned(answer, "ohwx")) <= MAX_CHARACTERS + 6


def test_words_are_compared_and_chosen_by_part() -> None:
    before, after = "a red cat  on the mat\nasleep", "a black cat on the mat, asleep at night"
    pieces = pieces_of(before, after)
    assert "".join(piece.before for piece in pieces) == before
    assert merged(pieces, []) == before and merged(pieces, choices_in(pieces)) == after
    black = next(at for at, piece in enumerate(pieces) if "black" in piece.after)
    assert merged(pieces, [black]) == "a black cat  on the mat\nasleep"
    assert merged(pieces_of("", "a cat"), [0]) == "a cat" and choices_in(pieces_of("a", "a")) == []
    assert len(pieces_of("a " * 5000 + "a", "b " * 5000 + "b")) == 1
