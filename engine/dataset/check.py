"""A report on a dataset: every picture with caption, repeats, bucket and crop, and every problem found.

Unlike a scan it decodes each picture, because truncation, blur and copies show only so; what was measured is kept in
the cache. :func:`check_dataset` gives plain values that JSON can carry, :func:`inspect_dataset` the problems
themselves.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import DatasetConfig
from engine.dataset.balance import Part, balance
from engine.dataset.buckets import Placement, place
from engine.dataset.captions import final_caption
from engine.dataset.decoder import Decoder
from engine.dataset.pairs import PICTURES
from engine.dataset.problems import Problem, from_error, problem
from engine.dataset.quality_check import Measured, quality_problems
from engine.dataset.quality_store import Kept
from engine.dataset.scan import Sample, collect
from engine.dataset.sidecar import SIDECAR_NAME
from engine.dataset.survey import Surveyor, decoding_problems
from engine.dataset.tokens import CLIP_LIMIT, TokenCount, Tokenizer, count_tokens
from engine.dataset.variety import Band, count_problems, style_problems, variety_problems
from engine.dataset.walk import natural_key, walk
from engine.errors import DatasetError
from engine.text import safe_text

REPORT_VERSION = 2
_MUCH_CROPPED = 0.35
"""Part of a picture that may be lost to the crop without a warning."""
_MUCH_ENLARGED = 2.0
_LONG = 2.5
"""Times a picture may be longer than it is wide, or the other way, without a word."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Row:
    """One picture as far as it can be trained on."""

    sample: Sample
    placement: Placement
    text: str
    """What is trained on; for captions that change from epoch to epoch, epoch 0's."""
    tokens: TokenCount | None
    seen: Kept | None
    """What its pixels tell; None where they were not looked at."""

    @property
    def enlarged(self) -> float:
        """Scale from the file's pixels to the trained ones."""
        return self.placement.resized_w / self.sample.width

    @property
    def kept(self) -> float:
        """Part of the picture's area that the crop keeps."""
        place = self.placement
        return place.bucket_w * place.bucket_h / (place.resized_w * place.resized_h)


@dataclass(frozen=True)
class Options:
    """What a check takes into account beside the dataset's settings.

    Attributes:
        seed: of the captions' draws.
        decode: decode each picture; False reads headers only.
        tokenizers: CLIP's and T5's; captions are counted where they are given.
        t5_limit: tokens T5 reads for this model: 512 for dev, 256 for schnell.
        batch_size: buckets with fewer pictures than this are reported.
        held_out: a folder of pictures that are measured and must not be trained on.
        band: how many pictures are wanted.
        cache: folder in which is kept what was measured; None keeps nothing.
        progress: called with (done, total) pictures, first over the headers, then over the decoded pictures.
        stop: asked between pictures; True ends the check.
    """

    seed: int = 42
    decode: bool = True
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None
    t5_limit: int = 512
    batch_size: int = 1
    held_out: Path | None = None
    band: Band | None = None
    cache: Path | None = None
    progress: Progress | None = None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Inspection:
    """What a check found."""

    rows: tuple[_Row, ...]
    problems: tuple[Problem, ...]
    buckets: tuple[dict[str, Any], ...]
    excluded: int = 0
    """Pictures that the user left out."""

    @property
    def balance(self) -> tuple[Part, ...]:
        """How often an epoch shows each folder."""
        return balance(
            (os.path.dirname(row.sample.name) or safe_text(row.sample.path.parent.name, 120), row.sample.repeats,
             row.sample.regularization)
            for row in self.rows
        )  # fmt: skip


def check_dataset(config: DatasetConfig, **options: Any) -> dict[str, Any]:
    """Look at everything in a dataset and report it.

    Args:
        config: the dataset's settings.
        options: see :class:`Options`.

    Returns:
        ``summary``, ``images``, ``buckets`` and ``problems``. With ``summary.errors`` at 0 the dataset can be trained
        on as it is. Paths and captions of images are as they are on disk, not made safe to show.

    Raises:
        ConfigError: the bucket settings allow no bucket.
    """
    found = inspect_dataset(config, Options(**options))
    codes = _codes_by_path(found.problems)
    return {
        "version": REPORT_VERSION,
        "folders": [str(folder.path) for folder in config.folders],
        "resolution": config.resolution,
        "summary": _summary(found),
        "images": [_image(row, codes) for row in found.rows],
        "buckets": list(found.buckets),
        "balance": [vars(part) for part in found.balance],
        "problems": [each.plain() for each in found.problems],
    }


def inspect_dataset(config: DatasetConfig, options: Options) -> Inspection:
    """Find everything that is wrong with a dataset, or good to know.

    Raises:
        ConfigError: the bucket settings allow no bucket.
        Stopped: ``options.stop`` said so.
    """
    with Decoder(config.max_megapixels) as decoder:
        scan = collect(config, decoder, options.progress)
    problems = list(scan.problems)
    surveyor = Surveyor(config, options.cache, options.stop)
    kept = _decodable(scan.samples, config, surveyor, problems, options.progress) if options.decode else {}
    samples = [sample for sample in scan.samples if not options.decode or sample.path in kept]
    rows = _rows(samples, config, options, kept)
    problems += _mask_problems(rows, config) if options.decode else []
    for row in rows:
        problems += _row_problems(row, options.t5_limit)
    problems += _same_files(rows)
    buckets = _buckets(rows)
    problems += _bucket_problems(buckets, options.batch_size)
    problems += _set_problems(rows, config, options, surveyor)
    errors = any(found.severity == "error" for found in problems)
    if not errors and all(sample.regularization for sample in samples):
        hint = "Add a folder with pictures of what the LoRA is to learn, and a caption file beside each."
        if scan.excluded:
            hint = f"{scan.excluded} pictures are excluded in {SIDECAR_NAME}: take some in again."
        problems.append(problem(config.folders[0].path, "nothing", "error", "Nothing to train on", hint))
    return Inspection(tuple(rows), tuple(problems), tuple(buckets), scan.excluded)


def _decodable(
    samples: tuple[Sample, ...],
    config: DatasetConfig,
    surveyor: Surveyor,
    problems: list[Problem],
    progress: Progress | None,
) -> dict[Path, Kept]:
    """What the samples that decode show; the others, and what decoding tells of them, become problems."""
    known = {(found.path, found.code) for found in problems}
    good: dict[Path, Kept] = {}
    for sample, outcome in zip(samples, surveyor.survey([sample.path for sample in samples], progress), strict=True):
        if isinstance(outcome, DatasetError):
            problems.append(from_error(sample.path, "picture", outcome))
            continue
        good[sample.path] = outcome
        found = decoding_problems(sample.path, outcome.measures, config)
        problems += [each for each in found if (each.path, each.code) not in known]
    return good


def _set_problems(rows: list[_Row], config: DatasetConfig, options: Options, surveyor: Surveyor) -> Iterator[Problem]:
    """What shows only in all pictures together."""
    concept = [row for row in rows if not row.sample.regularization]
    folder = config.folders[0].path
    seen = [_measured(row) for row in rows if row.seen is not None]
    yield from quality_problems(seen, _held_out(options.held_out, surveyor))
    captions = [row.sample.caption for row in concept]
    if options.band is not None and concept:
        yield from count_problems(len(concept), options.band, folder)
    yield from style_problems(captions, folder)
    yield from variety_problems(captions, [each for each in seen if not each.regularization], folder)


def _measured(row: _Row) -> Measured:
    assert row.seen is not None
    sample = row.sample
    cropped = sample.box is not None
    return Measured(sample.path, sample.name, *sample.picture_size, row.seen, cropped, sample.regularization)


def _held_out(folder: Path | None, surveyor: Surveyor) -> list[Measured]:
    """The pictures that must not be trained on; one that cannot be read is told where it is measured."""
    if folder is None:
        return []
    paths = [
        Path(directory, name)
        for directory, names in walk(folder).directories.items()
        for name in sorted(names, key=natural_key)
        if os.path.splitext(name)[1].lower() in PICTURES
    ]
    seen = zip(paths, surveyor.survey(paths), strict=True)
    return [Measured(path, safe_text(path.name), 0, 0, kept) for path, kept in seen if isinstance(kept, Kept)]


def _rows(samples: list[Sample], config: DatasetConfig, options: Options, kept: dict[Path, Kept]) -> list[_Row]:
    captions = config.captions
    texts = [
        final_caption(sample.caption, captions, options.seed, 0, sample.index, sample.regularization)
        for sample in samples
    ]
    counts = count_tokens(texts, *options.tokenizers) if options.tokenizers else [None] * len(texts)
    return [
        _Row(
            sample, place(sample.width, sample.height, config.resolution, config.buckets), text, count,
            kept.get(sample.path),
        )
        for sample, text, count in zip(samples, texts, counts, strict=True)
    ]  # fmt: skip


def _row_problems(row: _Row, t5_limit: int) -> Iterator[Problem]:
    path = row.sample.path
    if row.enlarged > _MUCH_ENLARGED:
        size = f"{row.sample.width} x {row.sample.height}"
        message = f"The picture is small ({size}) and enlarged {row.enlarged:.1f} times"
        hint = "Use a larger original, a lower resolution, or dataset.buckets.no_upscale."
        yield problem(path, "enlarged", "warning", message, hint, "exclude")
    if 1 - row.kept > _MUCH_CROPPED:
        message = f"The crop keeps only {row.kept:.0%} of the picture"
        yield problem(path, "cropped", "warning", message, "Crop it yourself to what matters, or widen the buckets.")
    elif max(row.sample.width, row.sample.height) > _LONG * min(row.sample.width, row.sample.height):
        times = max(row.sample.width, row.sample.height) / min(row.sample.width, row.sample.height)
        message = f"An odd shape: its sides are 1 to {times:.1f}"
        yield problem(path, "odd-shape", "warning", message, "Crop it to what matters: FLUX.1 saw few of that shape.")
    if row.tokens and row.tokens.t5 > t5_limit:
        message = f"The caption has {row.tokens.t5} T5 tokens; what follows token {t5_limit} is not read"
        yield problem(path, "t5-overflow", "warning", message, "Shorten it.")
    if row.tokens and row.tokens.clip > CLIP_LIMIT:
        message = f"The caption has {row.tokens.clip} CLIP tokens; CLIP reads {CLIP_LIMIT}, T5 the rest"
        yield problem(
            path, "clip-overflow", "warning", message, "Usually harmless with FLUX.1: put what matters first."
        )


def _mask_problems(rows: list[_Row], config: DatasetConfig) -> list[Problem]:
    """Masks that cannot be used, which would end a run before it began."""
    found = []
    with Decoder(config.max_megapixels) as decoder:
        for row in rows:
            sample = row.sample
            if sample.mask is None or sample.mask == sample.path:
                continue
            try:
                decoder.mask(sample.mask, row.placement, sample.picture_size, sample.box, False, False)
            except DatasetError as err:
                found.append(from_error(sample.mask, "mask", err))
    return found


def _same_files(rows: list[_Row]) -> Iterator[Problem]:
    """Pictures that are one file under two names: hard links, and links inside the folder."""
    first: dict[tuple[int, int], Sample] = {}
    for sample in (row.sample for row in rows):
        try:
            status = os.stat(sample.path)
        except OSError:
            continue  # gone since it was read: whoever trains says so
        other = first.setdefault((status.st_dev, status.st_ino), sample)
        if other is not sample:
            message = f"The picture is the same file as {other.name}"
            yield problem(sample.path, "same-file", "warning", message, "Remove one, or set repeats for its folder.")


def _buckets(rows: list[_Row]) -> list[dict[str, Any]]:
    """Each bucket with its pictures and with how often they are seen in an epoch."""
    images: Counter[tuple[int, int]] = Counter()
    seen: Counter[tuple[int, int]] = Counter()
    for row in rows:
        size = (row.placement.bucket_w, row.placement.bucket_h)
        images[size] += 1
        seen[size] += row.sample.repeats
    return [{"bucket": list(size), "images": images[size], "per_epoch": seen[size]} for size in sorted(images)]


def _bucket_problems(buckets: list[dict[str, Any]], batch_size: int) -> Iterator[Problem]:
    for entry in buckets:
        if entry["per_epoch"] < batch_size:
            width, height = entry["bucket"]
            message = (
                f"Bucket {width} x {height} has {entry['per_epoch']} pictures, fewer than a batch of {batch_size}"
            )
            hint = "Crop those pictures to a more common shape, or raise dataset.buckets.step."
            yield problem(f"{width}x{height}", "small-bucket", "warning", message, hint)


def _codes_by_path(problems: tuple[Problem, ...]) -> dict[str, list[str]]:
    codes: dict[str, list[str]] = defaultdict(list)
    for found in problems:
        codes[found.path].append(found.code)
    return codes


def _image(row: _Row, codes: dict[str, list[str]]) -> dict[str, Any]:
    sample, placement = row.sample, row.placement
    places = [safe_text(path) for path in (sample.path, sample.caption_path) if path]
    return {
        "path": str(sample.path),
        "name": sample.name,
        "format": sample.format,
        "width": sample.picture_size[0],
        "height": sample.picture_size[1],
        "cropped_to": list(sample.box) if sample.box else None,
        "mask": str(sample.mask) if sample.mask else None,
        "caption_path": str(sample.caption_path) if sample.caption_path else None,
        "caption": sample.caption,
        "text": row.text,
        "tokens": vars(row.tokens) if row.tokens else None,
        "repeats": sample.repeats,
        "regularization": sample.regularization,
        "bucket": [placement.bucket_w, placement.bucket_h],
        "resized": [placement.resized_w, placement.resized_h],
        "crop": [placement.left, placement.top],
        "kept": round(row.kept, 4),
        "problems": [code for place in places for code in codes.get(place, [])],
    }


def _summary(found: Inspection) -> dict[str, Any]:
    severities = Counter(each.severity for each in found.problems)
    rows = found.rows
    return {
        "images": len(rows),
        "regularization_images": sum(row.sample.regularization for row in rows),
        "per_epoch": sum(row.sample.repeats for row in rows),
        "buckets": len({(row.placement.bucket_w, row.placement.bucket_h) for row in rows}),
        "errors": severities["error"],
        "warnings": severities["warning"],
        "notes": severities["note"],
        "excluded": found.excluded,
    }
