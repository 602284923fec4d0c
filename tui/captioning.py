"""The captioning job of a work folder, as the screen knows it: begun, followed, told of in words.

It belongs to the workplace, so it outlives screens: a detached host goes on with it. One job at a time, and none
while a run trains, since both want the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.caption_job import CaptionJob
from engine.captioners.making import LOADING, STAGE, Subject
from engine.captioners.request import CaptionRequest
from engine.commands import Pause, Resume, StopNow
from engine.errors import RunError
from tui.view import RunView, fold

if TYPE_CHECKING:
    from tui.catalog import Row
    from tui.workplace import Workplace


class Captioning:
    """At most one job.

    Args:
        place: the work folder's workplace.

    Attributes:
        job: the job in progress, or the last one; None before the first.
        view: its events, folded.
        request: what was asked for last, for the next time.
        told: the end of the last job was told to the user.
    """

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self.job: CaptionJob | None = None
        self.view = RunView()
        self.request: CaptionRequest | None = None
        self.told = True

    @property
    def alive(self) -> bool:
        """Whether pictures are being captioned, or the job is paused."""
        return self.job is not None and self.job.alive

    def start(self, request: CaptionRequest, rows: Sequence[Row]) -> None:
        """Begin to caption ``rows``.

        Raises:
            RunError: there is nothing to caption, or something else is going on.
        """
        if self.alive:
            raise RunError("Pictures are being captioned already", self.words(), "Stop that first (A).")
        if self._place.live:
            raise RunError(
                "A run is live", "It needs the GPU for itself", "Caption before or after it; editing by hand goes on."
            )
        if not rows:
            raise RunError("Nothing to caption", "No picture is marked or found", "Mark some, or show all (esc).")
        self.request, self.view, self.told = request, RunView(), False
        self.job = CaptionJob(request, [Subject(row.path, row.name) for row in rows])
        self.job.start()

    def poll(self) -> None:
        """Take what is new of the job's events."""
        if self.job is not None:
            for entry in self.job.events.since(self.view.seq):
                fold(self.view, entry)

    @property
    def paused(self) -> bool:
        """Whether the job holds."""
        return self.job is not None and self.job.state == "paused"

    def toggle(self) -> None:
        """Pause after the batch in progress, or go on."""
        if self.job is not None:
            self.job.submit(Resume() if self.paused else Pause())

    def stop(self) -> None:
        """End the job; what it made is kept, and it goes on from there when it is started again."""
        if self.job is not None:
            self.job.submit(StopNow())

    def words(self) -> str:
        """How far it is, for the status line; empty while nothing is going on."""
        if not self.alive:
            return ""
        stage, loading = self.view.stages.get(STAGE), self.view.stages.get(LOADING)
        if loading is not None and not loading.complete:
            return "loading the captioner"
        count = f" {stage.done}/{stage.total}" if stage is not None else ""
        return f"captioning{count}{', paused' if self.paused else ''}"

    def result(self) -> str:
        """What the job that ended came to, in a line."""
        if self.job is None:
            return ""
        outcome = self.job.outcome
        parts = [f"{len(outcome.made)} pictures captioned"]
        parts += [f"{outcome.known} were already"] if outcome.known else []
        parts += [f"{len(outcome.failed)} failed (A tells)"] if outcome.failed else []
        end = "; V reviews them" if outcome.made or outcome.known else ""
        return ", ".join(parts) + ("" if outcome.complete else ", then stopped") + end

    def remarks(self, most: int = 6) -> list[str]:
        """The newest of what the job remarked: pictures that failed, memory that ran out."""
        return [line.text for line in self.view.log if line.level != "info"][-most:]

    def close(self) -> None:
        """End the job and wait until its thread is done with the batch."""
        if self.job is not None:
            self.job.submit(StopNow())
            self.job.join(60)


def captioning_of(place: Workplace) -> Captioning:
    """The captioning of a work folder, made when first asked for."""
    if place.captioning is None:
        place.captioning = Captioning(place)
    return place.captioning
