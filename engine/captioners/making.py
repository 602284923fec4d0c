"""Captions for many pictures: decoded ahead, asked in batches, kept one by one.

Comes in: pictures, a request, a captioning model. Goes out: a draft beside each picture, progress as events. Stopped
or killed, it goes on where it was: a picture that has its answer from the same model and prompt is not asked again.
Memory that runs out halves the batch. Torch-free at import.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.captioners.answers import cleaned
from engine.captioners.drafts import TAKEN, Draft, draft_path, load_draft, save_draft, size_of
from engine.captioners.found import CaptionerFolder, recognise
from engine.captioners.request import DEFAULT_PROMPTS, CaptioningStopped, CaptionRequest
from engine.dataset.decoder import Decoder
from engine.dataset.edits import CaptionChanged, open_caption, write_caption
from engine.errors import DatasetError, EngineError, ModelFileError
from engine.events import EventLog, Log, Progress
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.captioners.load import Captioner
    from engine.captioners.weights import Picture

STAGE = "caption"
LOADING = "load captioner"
LONGEST_SIDE = 1024
"""Pixels a picture is decoded to: no model known looks closer in one piece."""


@dataclass(frozen=True)
class Subject:
    """A picture to be captioned.

    Attributes:
        path: its file.
        name: safe to show.
        write_to: the caption file to write where there is none; None to keep the answer as a draft alone.
    """

    path: Path
    name: str
    write_to: Path | None = None


@dataclass
class Outcome:
    """What came of it: texts and failures (in words) by picture, how many had their answer already, and remarks."""

    made: dict[Path, str] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    known: int = 0
    remarks: list[str] = field(default_factory=list)
    complete: bool = False


@dataclass(frozen=True)
class Control:
    """How whoever asked has a say: ``hold`` is called between batches and may wait, ``stop`` ends it."""

    hold: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False


def asked_in_words(found: CaptionerFolder, request: CaptionRequest) -> str:
    """What a draft says it was made with: another prompt, threshold or trigger word makes another draft."""
    if found.kind == "tagger":
        how = request.tagging
        parts = [f"general {how.general:g}"]
        parts += [f"characters {how.character:g}"] if how.characters else ["no characters"]
        parts += ["rating"] if how.rating else []
        parts += [f"without {', '.join(sorted(how.blacklist))}"] if how.blacklist else []
        words = ", ".join(parts)
    else:
        words = DEFAULT_PROMPTS[found.kind] if request.prompt is None else request.prompt
    return f"{words} (trigger: {request.trigger.strip()})" if request.trigger.strip() else words


def caption_pictures(
    request: CaptionRequest,
    subjects: Sequence[Subject],
    events: EventLog,
    control: Control = Control(),
    load: Callable[[CaptionerFolder, CaptionRequest], Captioner] | None = None,
) -> Outcome:
    """Caption ``subjects``; pictures that fail are told and passed over.

    Raises:
        EngineError: the model cannot be loaded, fails, or does not fit into memory even with one picture; or what it
            says cannot be kept. What was made before stands.
    """
    found = recognise(request.model)
    words, outcome = asked_in_words(found, request), Outcome()
    waiting = [one for one in subjects if request.again or not _has_draft(one, found.name, words)]
    outcome.known = len(subjects) - len(waiting)
    events.append(Progress(STAGE, outcome.known, len(subjects)))
    if outcome.known:
        events.append(Log("info", f"{outcome.known} of {len(subjects)} pictures have their answer already"))
    if not waiting or control.stop():
        outcome.complete = not waiting
        return outcome
    events.append(Progress(LOADING, 0, 1, found.name))
    captioner = (load or _load)(found, request)
    events.append(Progress(LOADING, 1, 1, found.name))
    with Decoder() as decoder:
        _Batches(captioner, request, found.name, words, events, control, outcome).run(waiting, len(subjects), decoder)
    return outcome


class _Batches:
    """The loop, and what it needs to know."""

    def __init__(
        self, captioner: Captioner, request: CaptionRequest, model: str, words: str, events: EventLog,
        control: Control, outcome: Outcome,
    ) -> None:  # fmt: skip
        self._captioner, self._trigger, self._events = captioner, request.trigger, events
        self._model, self._words, self._control, self._outcome = model, words, control, outcome
        self._size = request.batch_size or _suggested()

    def run(self, waiting: Sequence[Subject], total: int, decoder: Decoder) -> None:
        """Ask until nobody waits or the user has enough."""
        done, outcome = total - len(waiting), self._outcome
        with _Ahead(waiting, decoder) as ahead:
            while True:
                self._control.hold()
                if self._control.stop():
                    return
                batch = ahead.take(self._size)
                if not batch:
                    break
                good = [(one, picture) for one, picture in batch if not isinstance(picture, DatasetError)]
                for one, broken in batch:
                    if isinstance(broken, DatasetError):
                        self._fail(one, f"{broken.title}: {broken.detail}")
                try:
                    answers = self._answers([picture for _, picture in good])
                except CaptioningStopped:
                    return
                for (one, _), answer in zip(good, answers, strict=True):
                    self._keep(one, answer)
                done += len(batch)
                self._events.append(Progress(STAGE, done, total, batch[-1][0].name))
        outcome.complete = True

    def _answers(self, pictures: list[Picture]) -> list[str]:
        """One answer for each, in smaller batches where memory runs out."""
        answers: list[str] = []
        while len(answers) < len(pictures):
            part = pictures[len(answers) : len(answers) + self._size]
            given = self._asked(part)
            if given is None:
                self._step_down(len(part))
            elif len(given) != len(part):
                raise ModelFileError(
                    "The captioning model gave no answer to each picture",
                    f"{self._model}: {len(given)} answers to {len(part)} pictures",
                    "Set the batch to 1.",
                )
            else:
                answers += given
        return answers

    def _asked(self, part: list[Picture]) -> list[str] | None:
        """The model's answers; None where memory ran out. The error's frames, which hold memory, end here."""
        from engine.memory.exhaustion import first_line, ran_out

        try:
            return self._captioner.caption(part, self._control.stop)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as err:
            if ran_out(err):
                return None
            raise ModelFileError(
                "The captioning model fails",
                f"{self._model}: {type(err).__name__}: {first_line(err)}",
                "Try it with another prompt and a batch of 1; its files may not belong together.",
            ) from err

    def _step_down(self, tried: int) -> None:
        free_memory()
        if tried <= 1:
            raise EngineError(
                "Not enough memory for one picture",
                f"{self._model} ran out of memory with a single picture",
                "Take a smaller model, or end what else uses the GPU. What was made so far is kept.",
            )
        self._size = tried // 2
        remark = f"Memory ran out with {tried} pictures at a time; going on with {self._size}"
        self._outcome.remarks.append(remark)
        self._events.append(Log("warning", remark))

    def _keep(self, one: Subject, answer: str) -> None:
        text = cleaned(answer, self._trigger)
        if not text:
            self._fail(one, "the model said nothing")
            return
        taken = one.write_to is not None and self._write(one, one.write_to, text)
        draft = Draft(
            text, self._model, self._words, round(time.time(), 3), size_of(one.path), TAKEN if taken else ""
        )
        save_draft(one.path, draft)
        self._outcome.made[one.path] = text

    def _write(self, one: Subject, path: Path, text: str) -> bool:
        """Write the caption unless there is one by now."""
        try:
            base = open_caption(path)
            if base.digest:
                return False
            write_caption(base, text)
        except CaptionChanged:
            return False
        self._outcome.written.append(one.path)
        return True

    def _fail(self, one: Subject, why: str) -> None:
        self._outcome.failed[one.path] = safe_text(why, 500)
        self._events.append(Log("warning", safe_text(f"{one.name} has no answer: {why}", 500)))


class _Ahead:
    """Pictures decoded in a thread while the model works on those before."""

    def __init__(self, waiting: Sequence[Subject], decoder: Decoder) -> None:
        self._waiting, self._decoder = deque(waiting), decoder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decode-ahead")
        self._coming: deque[tuple[Subject, Future[Picture | DatasetError]]] = deque()

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[tuple[Subject, Picture | DatasetError]]:
        """The next pictures, ``count`` at most; as many again are begun."""
        while self._waiting and len(self._coming) < 2 * count:
            one = self._waiting.popleft()
            self._coming.append((one, self._pool.submit(self._decode, one.path)))
        batch = [self._coming.popleft() for _ in range(min(count, len(self._coming)))]
        return [(one, future.result()) for one, future in batch]

    def _decode(self, path: Path) -> Picture | DatasetError:
        try:
            return self._decoder.thumbnail(path, LONGEST_SIDE)
        except DatasetError as err:
            return err


def free_memory() -> None:
    """Give back what torch keeps of the GPU's memory, where torch is there at all."""
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _load(found: CaptionerFolder, request: CaptionRequest) -> Captioner:
    from engine.captioners.load import load_captioner

    return load_captioner(found, request)


def _suggested() -> int:
    from engine.captioners.load import suggested_batch

    return suggested_batch()


def _has_draft(one: Subject, model: str, words: str) -> bool:
    try:
        draft = load_draft(draft_path(one.path, model))
    except DatasetError:
        return False
    return draft is not None and draft.prompt == words and draft.picture_bytes == size_of(one.path)
