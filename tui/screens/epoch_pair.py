"""Two epochs at full size, or a training picture and one: side by side, or flipped, where one sees what moved."""

from __future__ import annotations

from engine.events import SampleSaved
from tui.epochs_own import Captioned
from tui.epochs_shown import Shown, told_row
from tui.keys.epochs import PAIR_KEYS
from tui.keys.key import bindings
from tui.screens.two_pictures import TwoPictures
from tui.workplace import Workplace

NAMES = ("A", "B")


class PairScreen(TwoPictures):
    """Returns the second epoch and the number of the prompt, with a space between.

    Args:
        first: the epoch held, A; ``second`` is B, which left and right change.
        own: the place of the training picture that is held in its stead; -1 for none.
    """

    BINDINGS = bindings(PAIR_KEYS)

    def __init__(self, workplace: Workplace, shown: Shown, first: int, second: int, own: int = -1) -> None:
        super().__init__(workplace, shown.folder)
        self.shown = shown
        self.epochs = [first, second]
        self.prompt = shown.prompt
        self.own = own
        self.front = 1
        """Which of the two is in sight where one place has both."""
        self.flipping = False

    def on_mount(self) -> None:
        """Show both; where there is little room one in place of the other."""
        self.flipping = self.app.size.width < 60
        self._show()

    def _sample(self, number: int) -> SampleSaved | None:
        prompt = self.shown.prompts[self.prompt]
        return self.shown.grid.get((self.epochs[number], prompt.index, 1.0))

    def _told(self, number: int) -> str:
        row = next((row for row in self.shown.rows if row.epoch == self.epochs[number]), None)
        told = told_row(self.shown, row) if row is not None else f"epoch {self.epochs[number]}"
        missing = "" if self._sample(number) is not None else ": no picture of this prompt"
        return f"{NAMES[number]}  {told}{missing}"

    def _show(self) -> None:
        self.set_class(self.flipping, "-flip")
        for place, number in ((0, self.front),) if self.flipping else ((0, 0), (1, 1)):
            if number == 0 and (own := self._own()) is not None:
                path, caption = own
                told = f"{self.own + 1} of {len(self.shown.own)} training pictures, {path.name}: {caption}"
                self.put_file(place, path, f"{NAMES[0]}  {told}")
            else:
                self.put(place, self._sample(number), self._told(number))
        prompt = self.shown.prompts[self.prompt]
        first, second = (f"{name} epoch {epoch}" for name, epoch in zip(NAMES, self.epochs, strict=True))
        first = first if self._own() is None else f"{NAMES[0]} a training picture"
        self.tell(f"{first} and {second}  seed {prompt.seed}", prompt.text, prompt.kind)

    def _own(self) -> Captioned | None:
        """The training picture that is held in place of an epoch's."""
        return self.shown.own.at(self.shown.prompts[self.prompt].index, self.own)

    def action_flip(self) -> None:
        """The other picture in the same place; the first time, one place for both."""
        if self.flipping:
            self.front = 1 - self.front
        self.flipping = True
        self._show()

    def action_beside(self) -> None:
        """Both side by side, or one place for both."""
        self.flipping = not self.flipping
        self._show()

    def action_step(self, by: int) -> None:
        """Another epoch for B."""
        drawn = self.shown.drawn
        at = max(0, min(drawn.index(self.epochs[1]) + by, len(drawn) - 1))
        self.epochs[1], self.front = drawn[at], 1
        self._show()

    def action_own(self, by: int) -> None:
        """Hold the dataset's next picture as A, the nearest to the prompt first; after the last the epoch again."""
        if not self.shown.own:
            self.app.say("No picture of the dataset is known")
            return
        self.own, self.front = (self.own + 1 + by) % (len(self.shown.own) + 1) - 1, 0
        self._show()

    def action_line(self, by: int) -> None:
        """Another prompt."""
        self.prompt = max(0, min(self.prompt + by, len(self.shown.prompts) - 1))
        self._show()

    def action_swap(self) -> None:
        """A becomes B; in the place of a training picture comes B."""
        self.epochs.reverse()
        self.own, self.front = -1, 1 - self.front
        self._show()

    def action_back(self) -> None:
        """Back to the epochs, with the cursor on B."""
        self.dismiss(f"{self.epochs[1]} {self.prompt}")
