"""Pictures drawn outside of a run's training: with the base, with a LoRA file, with several epochs of a run.

The base is loaded once for all files; between them only the adapters' matrices change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.config import PromptConfig, RunConfig
from engine.dataset.decoder import Decoder
from engine.dataset.scan import Sample
from engine.errors import EngineError
from engine.events import Event, EventLog, Log, NearCopy, Progress, RunStarted, SampleSaved, Scored, replay
from engine.files import RunFolder
from engine.lora.adapter import Adapter, LoraSet, make_adapters
from engine.lora.formats import fit_state, load_lora
from engine.text import safe_text
from engine.training.device import compute_for
from engine.training.entries import Entries
from engine.training.evidence import Evidence
from engine.training.kit import note
from engine.training.lean import Lean, build_lean
from engine.training.measured_pictures import split
from engine.training.pictures import Asked, Painter, ask, told
from engine.training.prepare import check_base, embed_texts, open_store, prompt_captions, scan
from engine.training.products import take_products
from engine.training.sampler import BASE, sample_path


class Easel:
    """Draws pictures with one base and whichever LoRA is put on it.

    Args:
        first: a LoRA file that says where the adapters sit; None draws with the base alone.
        products: a file of the run whose products count; see :func:`engine.training.products.take_products`.

    Raises:
        EngineError: a file cannot be loaded.
        Stopped: the user stopped meanwhile.
    """

    def __init__(
        self,
        config: RunConfig,
        prompts: Sequence[PromptConfig],
        first: Path | None,
        products: Path | None,
        events: EventLog,
        should_stop: Callable[[], bool],
    ) -> None:
        base = check_base(config)
        self.compute = compute_for(config)
        store = open_store(config)
        captions = prompt_captions(prompts, config.sampling.cfg)
        texts = embed_texts(config, base, self.compute, captions, store, events, should_stop)
        events.append(Progress("load transformer", 0, 1))
        self._lora: LoraSet | None = None
        adapters: dict[str, Adapter] = {}
        if first is not None:
            _, targets = load_lora(first)
            self._lora = make_adapters(targets, config.lora, config.seed, self.compute.device)
            adapters = self._lora.adapters
        self.lean: Lean = build_lean(config, base, self.compute, adapters, say=partial(note, events))
        events.append(Progress("load transformer", 1, 1))
        try:
            decided = take_products(self.lean, products)
        except BaseException:  # as in build_lean: nothing pinned is left behind
            self.lean.close()
            raise
        for text in (*self.lean.notes, decided):
            if text:
                note(events, text)
        entries = Entries(store, {}, texts, config.seed)
        self.painter = Painter(
            config, base, self.compute, events, lambda text: entries.batch_text([text]), should_stop,
            self.lean.conditioning,
        )  # fmt: skip
        self._on: Path | None = None

    def close(self) -> None:
        """Give back what the base holds."""
        self.lean.close()

    def put_on(self, lora: Path | None) -> None:
        """Let this LoRA act; None lets the base alone.

        Raises:
            EngineError: it cannot be loaded, or sits on other modules than the first one.
        """
        if lora is not None and self._lora is not None:
            state, found = load_lora(lora)
            self._lora.load_state(fit_state(state, found, self._lora.targets))
        self._on = lora

    def strength(self, factor: float) -> AbstractContextManager[None]:
        """Let the LoRA act with ``factor`` meanwhile."""
        return _nothing() if self._lora is None else self._lora.strength(factor if self._on is not None else 0.0)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def draw_by_hand(
    config: RunConfig,
    lora: Path | None,
    prompts: Sequence[PromptConfig],
    out_dir: Path,
    events: EventLog,
    should_stop: Callable[[], bool],
    strengths: Sequence[float] = BASE,
) -> list[Path]:
    """See :func:`engine.jobs.sample_pictures`."""
    with closing(Easel(config, prompts, lora, lora, events, should_stop)) as easel:
        easel.put_on(lora)
        stem, extra = (lora.stem, lora.name) if lora else ("base", "")
        drawn = easel.painter.draw(
            easel.lean.transformer,
            ask(prompts, strengths if lora else BASE),
            lambda one, request: _free_name(out_dir, stem, request.seed, one.strength),
            {"lora": extra},
            strength=easel.strength,
        )
    return [Path(one.path) for one in drawn]


@dataclass(frozen=True)
class EpochFile:
    """An epoch to draw: its last step and its LoRA file; without a file it is the base model, epoch 0."""

    epoch: int
    step: int
    lora: Path | None = None


def draw_epochs(
    config: RunConfig,
    run: RunFolder,
    files: Sequence[EpochFile],
    strengths: Sequence[float],
    events: EventLog,
    should_stop: Callable[[], bool],
) -> list[Path]:
    """See :func:`engine.jobs.sample_epochs`; the run's lock is held."""
    prompts, known = config.sampling.prompts, drawn_before(run.events)
    wanted = [(file, _left(run, file, ask(prompts, strengths if file.lora else BASE), known)) for file in files]
    wanted = [(file, asked) for file, asked in wanted if asked]
    if not wanted:
        return []
    first = next((file.lora for file, _ in wanted if file.lora is not None), None)
    paths: list[Path] = []
    with (
        closing(Easel(config, prompts, first, run.config, events, should_stop)) as easel,
        closing(EventLog(run.events)) as log,
        closing(Evidence(config, _trained_on(config, events), easel.compute, events)) as evidence,
    ):
        for file, asked in wanted:
            easel.put_on(file.lora)
            before = events.seq
            drawn = easel.painter.draw(
                easel.lean.transformer,
                asked,
                partial(_name, run, file.step),
                {"step": file.step, "epoch": file.epoch},
                file.step,
                file.epoch,
                easel.strength,
            )
            evidence.look(drawn, should_stop)
            _tell(log, (entry.event for entry in events.since(before)))
            paths += [Path(one.path) for one in drawn]
            if should_stop():
                break
    return paths


def drawn_before(path: Path) -> dict[tuple[int, int, float], SampleSaved]:
    """What a run's events say was drawn, by step, prompt and strength; not of steps that it did again since.

    Raises:
        OSError: they cannot be read.
    """
    known: dict[tuple[int, int, float], SampleSaved] = {}
    for entry in replay(path, SampleSaved, RunStarted) if path.exists() else ():
        event = entry.event
        if isinstance(event, RunStarted):
            known = {place: one for place, one in known.items() if one.step <= event.resumed_step}
        elif isinstance(event, SampleSaved):
            known[event.step, event.index, event.strength] = event
    return known


def _left(
    run: RunFolder, file: EpochFile, asked: Iterable[Asked], known: Mapping[tuple[int, int, float], SampleSaved]
) -> list[Asked]:
    """What of ``asked`` is still to draw: of the same prompt and seed, a picture may stand there."""
    left = []
    for one in asked:
        before = known.get((file.step, one.index, one.strength))
        same = told(one, Path(), file.step, file.epoch)
        stands = before is not None and (run.samples / Path(before.path).name).is_file()
        if not stands or before is None or (before.prompt, before.seed) != (same.prompt, same.seed):
            left.append(one)
    return left


def _name(run: RunFolder, step: int, one: Asked, _: object) -> Path:
    """Where the run itself would put it; beside that, where another picture stands."""
    path = own = sample_path(run, step, one.index, one.strength)
    number = 1
    while path.exists():
        number += 1
        path = own.with_name(f"{own.stem}-{number}.png")
    return path


def _tell(log: EventLog, told_meanwhile: Iterable[Event]) -> None:
    """Say of what was told here what belongs to the run."""
    for event in told_meanwhile:
        if isinstance(event, SampleSaved | Scored | NearCopy):
            log.append(event)
    log.settle()


def _trained_on(config: RunConfig, events: EventLog) -> tuple[Sample, ...]:
    """The pictures that the run was trained on; none where the dataset is not as it was."""
    sampling = config.sampling
    if not sampling.copy_alarm and sampling.score_clip is None and sampling.score_dino is None:
        return ()
    try:
        with Decoder(config.dataset.max_megapixels) as decoder:
            return split(scan(config, decoder, events), config, decoder, events)[0]
    except EngineError as err:
        text = f"Samples are not compared with the training pictures: {err}".replace("\n", "; ")
        events.append(Log("warning", safe_text(text, 2000)))
        return ()


def _free_name(folder: Path, stem: str, seed: int, strength: float) -> Path:
    more = "" if strength == 1.0 else f"-s{strength:g}"
    number = 0
    while (path := folder / f"{stem}-seed{seed}{more}{f'-{number}' if number else ''}.png").exists():
        number += 1
    return path
