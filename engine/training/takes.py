"""Captions edited while a run is live: found between two epochs, encoded, written down, and used from there on.

An edit counts from the next epoch, whenever it was made: the files are looked at before an epoch's first step and
nowhere else. What was found is kept in the run's history before it is used, so a resumed run does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from engine.cache.text import text_key
from engine.dataset.history import CaptionHistory
from engine.dataset.scan import Sample
from engine.dataset.watch import CaptionWatch, NotesWatch
from engine.errors import DiskError, EngineError
from engine.events import CaptionsTaken, Log
from engine.text import safe_text
from engine.training.control import Control
from engine.training.keeper import Keeper
from engine.training.prepare import embed_texts
from engine.training.release import leave_gpu, room_on_host
from engine.training.step_losses import parts


class Takes:
    """Takes up edited captions for one run.

    Attributes:
        away: base and optimizer wait in host memory: they left the GPU for the text encoders.
    """

    def __init__(self, keeper: Keeper, history: CaptionHistory, control: Control) -> None:
        self.keeper = keeper
        self.config = keeper.config
        self.events = keeper.events
        self.kit = keeper.kit
        self.order = keeper.kit.prepared.order
        self.history = history
        self.control = control
        self.away = False
        self._watch = CaptionWatch(self.order.samples, self.config.dataset.captions.extensions)
        self._notes = NotesWatch(folder.path for folder in self.config.dataset.folders)

    def begin(self, step: int) -> None:
        """Write down the captions that the run begins with; after ``step`` steps of it, say what was edited since.

        Raises:
            DiskError: they could not be written.
        """
        if self.history.damaged:
            text = f"{self.history.damaged} damaged lines at the end of the run's captions were cut off"
            self.events.append(Log("warning", text))
        self._miss(step)
        known = self.history.latest()
        fresh = {str(sample.path): sample.caption for sample in self.order.samples if str(sample.path) not in known}
        if fresh:
            self.history.record(1, fresh)
        edited = [s for s in self.order.samples if s.caption != self.order.caption(s, self.history.decided)]
        if edited:
            self._announce(edited, step)

    def find(self, epoch: int) -> dict[int, str]:
        """New captions from ``epoch`` on, by the samples' indices: encoded and written down, not yet in use.

        Raises:
            Stopped: the user stopped the run meanwhile; the epoch is not decided.
            DiskError: they could not be written down; the epoch is not decided, and finding finds them again.
        """
        if epoch <= self.history.decided:
            self._tell(epoch, sorted(self.history.epochs.get(epoch, ())))
            return {}
        found = self._watch.look(lambda sample: self.order.caption(sample, epoch))
        for remark in found.remarks:
            self.events.append(Log("warning", remark))
        for line in self._notes.look():
            self.events.append(Log("info", safe_text(line, 2000)))
        texts = found.texts
        try:
            self._embed(self.order.captions_from(epoch, texts))
        except DiskError:
            self._watch.forget(texts)
            raise
        except (torch.OutOfMemoryError, EngineError) as err:
            self.kit.compute.free_unused()
            self._watch.forget(texts)
            text = f"The captions edited since the last epoch do not count yet: {err}".replace("\n", "; ")
            self.events.append(Log("warning", safe_text(text, 2000)))
            texts = {}
        names = {str(s.path): texts[s.index] for s in self.order.samples if s.index in texts}
        try:
            self.history.record(epoch, names)
        except DiskError:
            self._watch.forget(texts)
            raise
        self._tell(epoch, list(names))
        return texts

    def use(self, epoch: int, texts: Mapping[int, str]) -> None:
        """Train on ``texts`` from ``epoch`` on: what the main process found, in every process."""
        if not self.kit.compute.is_main:
            self._embed(self.order.captions_from(epoch, texts))
        self.order.take(epoch, texts)

    def _embed(self, captions: set[str]) -> None:
        """Make sure that ``captions`` can be read from the cache."""
        kit, prepared = self.kit, self.kit.prepared
        new = captions - prepared.texts.keys()
        fingerprint = kit.base.family.text_fingerprint(self.config.model, kit.compute.encoder_dtype)
        cached = all(prepared.store.verify(text_key(caption, fingerprint)) for caption in sorted(new))
        if not cached and kit.compute.is_main:
            self._leave()
        if new:
            prepared.texts.update(
                embed_texts(
                    self.config, kit.base, kit.compute, new, prepared.store, self.events, self.control.stopping
                )
            )

    def _leave(self) -> None:
        """Make room on the GPU for the text encoders, if the host can hold what is there."""
        self.keeper.enter("caching")
        if self.kit.compute.device.type != "cuda":
            return
        needed, free = room_on_host(self.kit)
        if needed <= free:
            # Coming back may find the GPU taken by others: nothing done so far may hang on that.
            self.keeper.save_state()
            leave_gpu(self.kit)
            self.away = True

    def _miss(self, step: int) -> None:
        """Say which epochs' captions are gone: every epoch that has a step done was written down before it."""
        last = next(self.order.turns(after=step - 1)).epoch if step else 0
        first = self.history.decided + 1
        if first <= last:
            text = (
                f"What captions counted from epoch {first} to {last} is not in the run's folder any more: the run "
                "goes on with what the files hold now, and its course may differ"
            )
            self.events.append(Log("warning", text))

    def _announce(self, edited: Sequence[Sample], step: int) -> None:
        turn = next(self.order.turns(after=step), None)
        if turn is None:
            return
        first = max(turn.epoch if turn.index == 0 else turn.epoch + 1, self.history.decided + 1)
        ends = "" if first <= self.order.total_epochs else ", after the run's last"
        names = ", ".join(sample.name for sample in edited[:3]) + (" ..." if len(edited) > 3 else "")
        text = f"Captions edited since the run stopped count from epoch {first}{ends}: {names} ({len(edited)})"
        self.events.append(Log("info", safe_text(text, 2000)))

    def _tell(self, epoch: int, names: Sequence[str]) -> None:
        for part in parts(names):
            self.events.append(CaptionsTaken(epoch, part))
