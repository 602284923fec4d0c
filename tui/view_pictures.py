"""What a view keeps of training pictures: whose edited captions count, and how each is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from engine.events import CaptionsTaken, PictureLosses
from tui.view_words import taken_words

if TYPE_CHECKING:
    from tui.view import RunView


@dataclass
class PictureFigures:
    """Figures by the pictures' paths: about 1 is as usual, more is worse.

    Attributes:
        fixed: of the newest pass with fixed noise: how badly the caption fits.
        steps: of the training steps: how hard the picture is.
        fixed_step, steps_step: the steps they are of.
    """

    fixed: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    fixed_step: int = -1
    steps_step: int = -1

    @property
    def shown(self) -> Mapping[str, float]:
        """What the table shows: the pass with fixed noise, which says more, where there was one."""
        return self.fixed or self.steps

    def go_back(self, after: int) -> None:
        """Forget what came after a step."""
        if self.fixed_step > after:
            self.fixed, self.fixed_step = {}, -1
        if self.steps_step > after:
            self.steps, self.steps_step = {}, -1

    def take(self, event: PictureLosses) -> None:
        """Take up one event; several of one step belong together."""
        figures = event.figures
        if event.kind == "fixed":
            same = event.step == self.fixed_step and not figures.keys() & self.fixed.keys()
            self.fixed, self.fixed_step = (self.fixed if same else {}) | figures, event.step
        else:
            self.steps = (self.steps if event.step == self.steps_step else {}) | figures
            self.steps_step = event.step


def fold_pictures(view: RunView, event: CaptionsTaken | PictureLosses) -> str:
    """Take up what is told of training pictures; a line for the log, if it is worth one."""
    if isinstance(event, PictureLosses):
        view.pictures.take(event)
        return ""
    view.captions_taken |= dict.fromkeys(event.names, event.epoch)
    return taken_words(event)


def worst(figures: Mapping[str, float], count: int = 3) -> list[tuple[str, float]]:
    """Names and figures of the pictures that do worst, the worst first."""
    ordered = sorted(figures.items(), key=lambda item: (-item[1], item[0]))
    return [(PurePath(name).name, figure) for name, figure in ordered[:count]]
