"""A dataset as the trainer sees it: pictures with captions, sizes and repeats, and everything wrong with them.

Comes in: the dataset's settings and a decoder. Goes out: samples in a fixed natural order and problems. Only headers
are read here, so thousands of pictures take about a second; what shows only when a picture is decoded is found by
:mod:`engine.dataset.check` and by whoever decodes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from engine.config import DatasetConfig
from engine.dataset.buckets import place
from engine.dataset.captions import CaptionEncoding, read_caption
from engine.dataset.crops import fits, trained_size, used_crop
from engine.dataset.decoder import Decoder, ImageInfo
from engine.dataset.masks import masks_folder
from engine.dataset.noted import trained
from engine.dataset.pairs import Pair, pairs_of
from engine.dataset.problems import Fix, Problem, from_error, problem
from engine.dataset.regular import file_digest
from engine.dataset.sidecar import SIDECAR_NAME, Crop
from engine.dataset.walk import walk
from engine.errors import DatasetError
from engine.text import safe_text

__all__ = [
    "Problem", "Sample", "Scan", "all_pairs", "caption_of", "collect", "crop_problem", "each_pair", "file_digest",
    "picture_warnings", "scan_dataset", "trained_pairs",
]  # fmt: skip

_HINTS = {
    "animated": "Export the frame you want as a picture of its own.",
    "exif": "Look whether it stands upright; save it again with a picture editor if not.",
    "transparent": "Set dataset.background, or export it without transparency.",
}

_FIXES: dict[str, Fix] = {"animated": "convert", "transparent": "convert"}
_GOES_ON = ": the run goes on with the text it had"


@dataclass(frozen=True)
class Sample:
    """One picture to train on. ``path`` is its identity, ``name`` its place in the folder, safe to show."""

    index: int
    path: Path
    name: str
    caption_path: Path | None
    caption: str
    """The file's whole text; empty where there is none."""
    width: int
    """Pixels of what is trained on: after the EXIF rotation and the user's crop."""
    height: int
    repeats: int
    regularization: bool
    format: str = ""
    """What the header says: JPEG, PNG ..."""
    picture_size: tuple[int, int] = (0, 0)
    """Pixels of the whole picture, after the EXIF rotation."""
    crop: Crop | None = None
    """The user's, whether it fits or not; see :attr:`box`."""
    mask: Path | None = None
    """The file with its mask; with alpha masks the picture itself."""

    @property
    def box(self) -> Crop | None:
        """The crop that is trained on; None where that is the whole picture."""
        return used_crop(self.crop, *self.picture_size)

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the file's bytes; read when first asked for.

        Raises:
            DatasetError: the file cannot be read any more.
        """
        return file_digest(self.path)


@dataclass(frozen=True)
class Scan:
    """What a scan found. Pictures with an error are among the problems only, those excluded are counted."""

    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
    excluded: int = 0

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that keep a picture out of training."""
        return tuple(found for found in self.problems if found.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Problems that do not."""
        return tuple(found for found in self.problems if found.severity == "warning")

    def require_clean(self) -> None:
        """Refuse a dataset with errors.

        Raises:
            DatasetError: names the first of them.
        """
        if self.errors:
            raise _summary(f"The dataset has {_count(len(self.errors), 'error')}", self.errors)


def scan_dataset(
    config: DatasetConfig,
    decoder: Decoder,
    progress: Callable[[int, int], None] | None = None,
    known: Mapping[str, str] | None = None,
) -> Scan:
    """Scan all folders of ``config``; ``progress(done, total)`` counts pictures.

    ``known`` has the captions that a run in progress uses, by the picture's path: where a file is gone or broken by
    now, its text stands in, with a warning.

    Raises:
        ConfigError: the bucket settings allow no bucket.
        DatasetError: nothing is left to train on; the detail names what was found instead.
    """
    scan = collect(config, decoder, progress, known or {})
    if any(not sample.regularization for sample in scan.samples):
        return scan
    if scan.samples:
        raise DatasetError(
            "Nothing to train on",
            f"all {len(scan.samples)} pictures lie in folders marked as regularization",
            "Add a folder with pictures of what the LoRA is to learn.",
        )
    if scan.errors:
        only_captions = all(found.code == "no-caption" for found in scan.errors)
        title = "No picture has a caption" if only_captions else "No picture of the dataset can be used"
        raise _summary(title, scan.errors)
    if scan.excluded:
        raise DatasetError(
            "Nothing to train on",
            f"all {_count(scan.excluded, 'picture')} of the dataset are excluded",
            f"Take some in again: X in the dataset pane, or exclude in {SIDECAR_NAME}.",
        )
    folders = ", ".join(str(folder.path) for folder in config.folders)
    raise DatasetError(
        "The dataset has no pictures",
        f"no JPEG, PNG, WebP, BMP, TIFF or AVIF file in {safe_text(folders)}",
        "Set dataset.folders.path to a folder with pictures and a caption file beside each.",
    )


def collect(
    config: DatasetConfig,
    decoder: Decoder,
    progress: Callable[[int, int], None] | None = None,
    known: Mapping[str, str] = MappingProxyType({}),
) -> Scan:
    """Like :func:`scan_dataset`, but an empty result is a result."""
    problems: list[Problem] = []
    found = all_pairs(config, problems)
    pairs = trained(config, found, problems)
    samples: list[Sample] = []
    outcomes = decoder.probe_many([pair.path for pair in pairs])
    for done, (pair, outcome) in enumerate(zip(pairs, outcomes, strict=True), start=1):
        sample = _sample(pair, outcome, len(samples), config, problems, known.get(str(pair.path)))
        if sample is not None:
            samples.append(sample)
        if progress is not None:
            progress(done, len(pairs))
    return Scan(tuple(samples), tuple(problems), len(found) - len(pairs))


def all_pairs(config: DatasetConfig, problems: list[Problem]) -> list[Pair]:
    """The pairs of all folders, excluded ones too; a picture in two folders counts in the first.

    What is trained on of them, :func:`trained_pairs` says.
    """
    return list(each_pair(config, problems, [], lambda entries: None))


def each_pair(
    config: DatasetConfig, problems: list[Problem], directories: list[str], told: Callable[[int], None]
) -> Iterator[Pair]:
    """The pairs of :func:`all_pairs` one by one, in their order.

    Directories seen are appended; ``told`` hears how many entries were seen before the first pair of a folder comes.
    """
    seen: set[str] = set()
    several = len(config.folders) > 1
    before = 0
    for folder in config.folders:
        tree = walk(
            folder.path, folder.recursive, masks_folder(folder.path, config.masks), partial(_told, told, before)
        )
        before += tree.files
        problems += tree.problems
        directories += tree.directories
        places: set[str] = set()
        count = twice = 0
        for pair in pairs_of(tree, folder, config.captions.extensions, problems):
            count += 1
            place = os.path.realpath(pair.path) if several else ""
            if place in seen:
                twice += 1
                continue
            if several:
                places.add(place)
            yield pair
        if twice:
            message = f"{_count(twice, 'picture')} of it belong to an earlier folder too"
            hint = "List each folder once; the first entry counts."
            problems.append(problem(folder.path, "listed-twice", "warning", message, hint))
        elif not count and not tree.problems:
            message = f"No pictures among {_count(tree.files, 'file')}"
            problems.append(problem(folder.path, "empty-folder", "warning", message, "Check dataset.folders.path."))
        seen |= places


def _told(told: Callable[[int], None], before: int, entries: int) -> None:
    told(before + entries)


def trained_pairs(config: DatasetConfig) -> list[Pair]:
    """The pairs that are trained on, without a word of what is wrong."""
    return trained(config, all_pairs(config, []), [])


def _sample(
    pair: Pair,
    outcome: ImageInfo | DatasetError,
    index: int,
    config: DatasetConfig,
    problems: list[Problem],
    known: str | None,
) -> Sample | None:
    """One sample, or None with its errors among the problems; picture and caption are both looked at."""
    caption = caption_of(pair, config, problems, known)
    if isinstance(outcome, DatasetError):
        problems.append(from_error(pair.path, "picture", outcome))
        return None
    problems += picture_warnings(pair.path, outcome)
    size = outcome.width, outcome.height
    if pair.crop is not None and not fits(pair.crop, *size):
        problems.append(crop_problem(pair.path, pair.crop, *size))
    seen = trained_size(pair.crop, *size)
    try:
        place(*seen, config.resolution, config.buckets)
    except DatasetError as err:
        problems.append(from_error(pair.path, "bucket", err))
        return None
    if caption is None:
        return None
    return Sample(
        index, pair.path, pair.name, pair.caption, caption,
        *seen, pair.repeats, pair.regularization, outcome.format, size, pair.crop, pair.mask,
    )  # fmt: skip


def crop_problem(path: Path, crop: Crop, width: int, height: int) -> Problem:
    """A crop that does not fit the picture, as where the file was replaced by a smaller one."""
    left, top, wide, high = crop
    message = f"Its crop, {wide}x{high} at {left},{top}, does not fit the picture of {width}x{height} and is not used"
    return problem(path, "crop", "warning", message, f"Crop it anew, or take the crop out of {SIDECAR_NAME}.")


def picture_warnings(path: str | Path, info: ImageInfo) -> list[Problem]:
    """What the decoder remarked about a picture, as problems."""
    return [
        problem(path, code, "warning", f"Picture: {text}", _HINTS.get(code, ""), _FIXES.get(code, ""))
        for code, text in info.warnings
    ]


def caption_of(pair: Pair, config: DatasetConfig, problems: list[Problem], known: str | None = None) -> str | None:
    """The caption's text; None where the picture cannot be trained on for want of one.

    ``known`` is the text that a run in progress uses: it stands in where the file is gone or broken by now.
    """
    if pair.caption is None and known:
        hint = "Write it anew for the epochs to come."
        problems.append(problem(pair.path, "no-caption", "warning", f"The caption is gone{_GOES_ON}", hint))
        return known
    if pair.caption is None:
        return _without_caption(pair, config, problems)
    try:
        text = read_caption(pair.caption)
    except DatasetError as err:
        found = from_error(pair.caption, "caption", err, "encoding" if isinstance(err, CaptionEncoding) else "")
        if known is not None:
            found = replace(found, severity="warning", message=found.message + _GOES_ON)
        problems.append(found)
        return known
    if not text:
        message = "The caption is empty" + _trained_on(pair, config)
        problems.append(problem(pair.caption, "empty-caption", "warning", message, "Write what the picture shows."))
    return text


def _without_caption(pair: Pair, config: DatasetConfig, problems: list[Problem]) -> str | None:
    trainable = config.allow_missing_captions or (bool(config.captions.trigger_word) and not pair.regularization)
    endings = " or ".join(config.captions.extensions)
    if trainable:
        message = "The picture has no caption" + _trained_on(pair, config)
        problems.append(problem(pair.path, "no-caption", "warning", message, f"Put a {endings} file beside it."))
        return ""
    hint = f"Put a {endings} file of the same name beside it, set a trigger word, or allow_missing_captions = true."
    problems.append(problem(pair.path, "no-caption", "error", "The picture has no caption", hint))
    return None


def _trained_on(pair: Pair, config: DatasetConfig) -> str:
    if config.captions.trigger_word and not pair.regularization:
        return "; it is trained on the trigger word alone"
    return "; it is trained on the empty text"


def _summary(title: str, errors: Sequence[Problem]) -> DatasetError:
    lines = [f"{found.path}: {found.message}" for found in errors[:5]]
    if len(errors) > 5:
        lines.append(f"and {len(errors) - 5} more")
    hint = errors[0].hint if len({found.code for found in errors}) == 1 else ""
    return DatasetError(title, "\n".join(lines), f"{hint} `kiln dataset check` lists all of them.".strip())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
