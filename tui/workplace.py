"""What one work folder's workstation holds while screens come and go: the dataset, the run, the session.

A host keeps one :class:`Workplace` for its life; every attach builds an application around it. All heavy things in
here are made when first asked for, so that the first frame waits for none of them. Nothing here draws.
"""

from __future__ import annotations

import contextlib
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import DiskError, EngineError, RunError
from engine.files import RunFolder, default_cache_dir
from engine.locks import in_words
from engine.text import safe_text
from tui.bridge import Bridge, PastRun, RunLike
from tui.elsewhere import held, holder_of
from tui.measuring import measure
from tui.session import SessionState, load_session, save_session, write_session
from tui.settings import Settings
from tui.view import RunView

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.dataset.decoder import Decoder
    from tui.batch import Batches
    from tui.caption_desk import CaptionDesk
    from tui.captioning import Captioning
    from tui.catalog import Catalog
    from tui.mending import Mender
    from tui.thumbnails import Thumbnails

HOME = ".kiln"
"""Folder in the work folder for what is the workstation's own: session, host's log, thumbnails."""


def _batches(place: Workplace) -> Batches:
    from tui.batch import batches_of

    return batches_of(place)


def _mender(place: Workplace) -> Mender:
    from tui.mending import mender_of

    return mender_of(place)


class Workplace:
    """What a host owns: it outlives every screen.

    Args:
        folder: the work folder: where configurations and runs lie.
        settings: the user's settings; the defaults when None.
        session: where the user was; read from the work folder when None.

    Attributes:
        run: the run that is shown, live or over; None before one was chosen.
        config: the configuration that is shown; ``config_path`` is its file, None where it came from elsewhere.
        pending: a run that a command handed over, to begin after the first frame.
        machine: what is trained on, in words; empty until it was asked.
        lost: why the session could not be kept the last time, safe to show; empty when it was.
        captioning: captions made by a model, see :func:`tui.captioning.captioning_of`; None before the first.
        shared: another process keeps this folder's session, so this one leaves the file alone.
    """

    def __init__(self, folder: Path, settings: Settings | None = None, session: SessionState | None = None) -> None:
        self.folder = folder.absolute()
        self.settings = Settings() if settings is None else settings
        self.session = load_session(self.folder / HOME / "session.json") if session is None else session
        self.run: RunLike | None = None
        self.bridge: Bridge | None = None
        self.config: RunConfig | None = None
        self.config_path: Path | None = None
        self.pending: RunLike | None = None
        self.machine = ""
        self.lost = ""
        self.shared = False
        self.captioning: Captioning | None = None
        self._nothing = RunView()

    @classmethod
    def around(cls, run: RunLike, folder: Path | None = None, settings: Settings | None = None) -> Workplace:
        """A workplace for one run that somebody else made; begun after the first frame if it has no events yet."""
        place = cls(Path.cwd() if folder is None else folder, settings)
        place.take(run)
        return place

    @property
    def home(self) -> Path:
        """The workstation's own folder, made (for the user only) when first needed.

        Raises:
            DiskError: it cannot be made.
        """
        home = self.folder / HOME
        try:
            home.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            raise DiskError(
                "The work folder cannot be written", f"{safe_text(home)}: {err.strerror}", "Start in another folder."
            ) from err
        return home

    @cached_property
    def decoder(self) -> Decoder:
        """The process that opens pictures, one for catalog and thumbnails; it starts with the first request."""
        from engine.dataset.decoder import Decoder

        return Decoder()

    @cached_property
    def catalog(self) -> Catalog:
        """The dataset's rows."""
        from tui.catalog import Catalog

        return Catalog(self.decoder, default_cache_dir())

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """Small pictures, kept on disk."""
        from tui.thumbnails import Thumbnails

        try:
            place = self.home / "thumbs"
        except DiskError:  # a folder that cannot be written still can be looked at
            place = default_cache_dir() / "thumbs"
        return Thumbnails(self.decoder, place)

    @cached_property
    def desk(self) -> CaptionDesk:
        """The captions being edited."""
        from tui.caption_desk import CaptionDesk

        return CaptionDesk(
            self.session, self.catalog.set_caption, partial(_keep, self), self.folder, partial(_pasts, self)
        )

    batches = cached_property(_batches)
    """Changes of many captions, and their undo."""

    mender = cached_property(_mender)
    """Mending what is wrong with the dataset, and taking it back."""

    @property
    def view(self) -> RunView:
        """The newest state of the run that is shown; an empty one without a run."""
        return self.bridge.view if self.bridge is not None else self._nothing

    @property
    def live(self) -> bool:
        """Whether a run is being trained, or about to."""
        return self.pending is not None or (self.run is not None and self.run.alive)

    @property
    def elsewhere(self) -> str:
        """The process that trains the run shown, when it is not this one; empty otherwise."""
        return self.run.holder if isinstance(self.run, PastRun) else ""

    def open_config(self, path: Path) -> RunConfig:
        """Show a configuration, and its dataset.

        Raises:
            ConfigError: it cannot be used; every problem with its line.
        """
        from engine.config_file import load_config

        config = load_config(path)
        self.use(config, path.absolute())
        return config

    def open_dataset(self, folder: Path) -> None:
        """Show a folder of pictures without a configuration."""
        from engine.config import DatasetConfig

        dataset = DatasetConfig.model_validate({"folders": [{"path": folder}]})
        self.config = self.config_path = None
        self.catalog.open(dataset, None)

    def begin(self, config: RunConfig) -> RunLike:
        """Start a new run, and show its dataset.

        Raises:
            RunError: one is live.
        """
        from engine.run import Run

        _must_be_free(self)
        _must_not_caption(self)
        run = Run(config)
        path = self.config_path if config == self.config else None
        self.take(run)
        self.use(config, path)
        self.begin_pending()
        return run

    def resume(self, folder: Path) -> RunLike:
        """Go on with a run that was stopped or broke off.

        Raises:
            RunError: one is live, another process trains this one, or the folder holds none.
            ConfigError: its configuration cannot be read.
        """
        from engine.run import open_run

        _must_be_free(self)
        _must_not_caption(self)
        if holder_of(lock := RunFolder(folder).lock):
            raise held(in_words(lock))
        run = open_run(folder)
        self.take(run)
        self.use(run.config, None)
        self.begin_pending()
        return run

    def show(self, folder: Path) -> RunLike:
        """Show a run that is over or trained elsewhere, from its events; its dataset too if it can be read.

        Raises:
            RunError: a run is live, or the folder holds none.
        """
        from engine.config_file import load_config

        _must_be_free(self)
        run = PastRun(folder.absolute())
        if not run.folder.config.is_file():
            raise RunError("No run stands there", safe_text(folder), "r lists the runs there are.")
        self.take(run)
        with contextlib.suppress(EngineError):
            self.use(load_config(run.folder.config), None)
        return run

    def take(self, run: RunLike, path: Path | None = None) -> None:
        """Show ``run`` from now on; one without events is begun with :meth:`begin_pending`.

        Args:
            run: what to show.
            path: the file of its configuration, if it has one.
        """
        if self.bridge is not None:
            self.bridge.close()
        self.run = run
        self.bridge = Bridge(run)
        fresh = not run.alive and run.events.seq == 0 and not isinstance(run, PastRun)
        self.pending = run if fresh else None
        if fresh:  # whoever begins a run wants to see it
            self.session.pane = "training"
        config = getattr(run, "config", None)
        if config is not None:  # its dataset is opened after the first frame
            self.config, self.config_path = config, path

    def begin_pending(self) -> None:
        """Begin the run that waits for the first frame, if one does."""
        run, self.pending = self.pending, None
        if run is not None:
            if self.captioning is not None:  # both want the GPU; what was made is kept
                self.captioning.close()
            run.start()
            measure(run)

    def save_session(self) -> None:
        """Write down where the user is.

        Raises:
            DiskError: it cannot be written.
        """
        if self.shared:
            return
        try:
            save_session(self.session, self.home / "session.json")
        except DiskError as err:
            self.lost = f"{safe_text(err.title)}: {safe_text(err.detail)}"
            raise
        self.lost = ""

    def close(self) -> None:
        """Write the session and let go of threads and processes; a live run is not touched."""
        with contextlib.suppress(DiskError):
            self.save_session()
        if self.bridge is not None:
            self.bridge.close()
        if self.captioning is not None:
            self.captioning.close()
        for part in ("desk", "thumbnails", "catalog", "decoder"):
            if part in self.__dict__:
                self.__dict__[part].close()

    def use(self, config: RunConfig, path: Path | None) -> None:
        """Show a configuration and its dataset; ``path`` is its file if it has one."""
        self.config, self.config_path = config, path
        self.session.config = str(path) if path is not None else ""
        self.catalog.open(config.dataset, config.model)


def _keep(place: Workplace, table: dict[str, Any]) -> None:
    """Write a packed session; in the desk's thread, whose errors come up again when the screen is left."""
    if place.shared:
        return
    with contextlib.suppress(DiskError):
        write_session(table, place.home / "session.json")


def _pasts(place: Workplace) -> Path | None:
    """Where the captions' steps to undo are kept; None where that is another process's, or cannot be written."""
    if place.shared:
        return None
    with contextlib.suppress(DiskError):
        return place.home / "undo"
    return None


def _must_be_free(place: Workplace) -> None:
    if place.live:
        name = safe_text(place.view.name or "the one shown")
        raise RunError("A run is live already", name, "Stop it first (s), or wait for its end.")


def _must_not_caption(place: Workplace) -> None:
    if place.captioning is not None and place.captioning.alive:
        raise RunError(
            "Pictures are being captioned", place.captioning.words(), "Stop that first (A), or wait for its end."
        )
