"""A report on a dataset: every picture with caption, repeats, bucket and crop, and every problem found.

Plain values that JSON can carry. Unlike a scan it decodes each picture wholly, because truncation and transparency
show only so; several decoders share the work.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from engine.config import DatasetConfig
from engine.dataset.buckets import Placement, place
from engine.dataset.captions import final_caption
from engine.dataset.decoder import Decoder, ImageInfo
from engine.dataset.problems import Problem, from_error, problem
from engine.dataset.scan import Sample, collect, picture_warnings
from engine.dataset.tokens import CLIP_LIMIT, TokenCount, Tokenizer, count_tokens
from engine.errors import DatasetError
from engine.text import safe_text

REPORT_VERSION = 1
_MUCH_CROPPED = 0.35
"""Part of a picture that may be lost to the crop without a warning."""
_MUCH_ENLARGED = 2.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Row:
    """One picture as far as it can be trained on."""

    sample: Sample
    placement: Placement
    text: str
    """What is trained on; for captions that change from epoch to epoch, epoch 0's."""
    tokens: TokenCount | None

    @property
    def enlarged(self) -> float:
        """Scale from the file's pixels to the trained ones."""
        return self.placement.resized_w / self.sample.width

    @property
    def kept(self) -> float:
        """Part of the picture's area that the crop keeps."""
        place = self.placement
        return place.bucket_w * place.bucket_h / (place.resized_w * place.resized_h)


def check_dataset(
    config: DatasetConfig,
    *,
    seed: int = 42,
    decode: bool = True,
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    t5_limit: int = 512,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Look at everything in a dataset and report it.

    Args:
        config: the dataset's settings.
        seed: of the captions' draws.
        decode: decode each picture wholly; False reads headers only.
        tokenizers: CLIP's and T5's; captions are counted where they are given.
        t5_limit: tokens T5 reads for this model: 512 for dev, 256 for schnell.
        batch_size: buckets with fewer pictures than this are reported.
        progress: called with (done, total) pictures, first over the headers, then over the decoded pictures.

    Returns:
        ``summary``, ``images``, ``buckets`` and ``problems``. With ``summary.errors`` at 0 the dataset can be trained
        on as it is. Paths and captions of images are as they are on disk, not made safe to show.

    Raises:
        ConfigError: the bucket settings allow no bucket.
    """
    with Decoder(config.max_megapixels) as decoder:
        scan = collect(config, decoder, progress)
    problems = list(scan.problems)
    samples = _decodable(scan.samples, config, problems, progress) if decode else list(scan.samples)
    rows = _rows(samples, config, seed, tokenizers)
    for row in rows:
        problems += _row_problems(row, t5_limit)
    problems += _same_files(rows)
    buckets = _buckets(rows)
    problems += _bucket_problems(buckets, batch_size)
    errors = any(found.severity == "error" for found in problems)
    if not errors and all(sample.regularization for sample in samples):
        hint = "Add a folder with pictures of what the LoRA is to learn, and a caption file beside each."
        problems.append(problem(config.folders[0].path, "nothing", "error", "Nothing to train on", hint))
    codes = _codes_by_path(problems)
    return {
        "version": REPORT_VERSION,
        "folders": [str(folder.path) for folder in config.folders],
        "resolution": config.resolution,
        "summary": _summary(rows, problems),
        "images": [_image(row, codes) for row in rows],
        "buckets": buckets,
        "problems": [found.plain() for found in problems],
    }


def _decodable(
    samples: tuple[Sample, ...], config: DatasetConfig, problems: list[Problem], progress: Progress | None
) -> list[Sample]:
    """The samples that decode wholly; the others, and what decoding tells of them, become problems."""
    known = {(found.path, found.code) for found in problems}
    good: list[Sample] = []
    for done, (sample, outcome) in enumerate(zip(samples, _verify_all(samples, config), strict=True), start=1):
        if isinstance(outcome, DatasetError):
            problems.append(from_error(sample.path, "picture", outcome))
        else:
            good.append(sample)
            found = picture_warnings(sample.path, outcome)
            problems += [warning for warning in found if (warning.path, warning.code) not in known]
        if progress is not None:
            progress(done, len(samples))
    return good


def _verify_all(samples: tuple[Sample, ...], config: DatasetConfig) -> Iterator[ImageInfo | DatasetError]:
    """Decode with as many children as there are processors, four at most; results in order."""
    workers = min(4, os.cpu_count() or 1, max(1, len(samples)))
    with ExitStack() as stack:
        decoders = [stack.enter_context(Decoder(config.max_megapixels)) for _ in range(workers)]
        pool = stack.enter_context(ThreadPoolExecutor(workers))

        def verified(job: tuple[int, Sample]) -> ImageInfo | DatasetError:
            try:
                return decoders[job[0] % workers].verify(job[1].path, config.background)
            except DatasetError as err:
                return err

        yield from pool.map(verified, enumerate(samples))


def _rows(
    samples: list[Sample], config: DatasetConfig, seed: int, tokenizers: tuple[Tokenizer, Tokenizer] | None
) -> list[_Row]:
    captions = config.captions
    texts = [
        final_caption(sample.caption, captions, seed, 0, sample.index, sample.regularization) for sample in samples
    ]
    counts = count_tokens(texts, *tokenizers) if tokenizers else [None] * len(texts)
    return [
        _Row(sample, place(sample.width, sample.height, config.resolution, config.buckets), text, count)
        for sample, text, count in zip(samples, texts, counts, strict=True)
    ]


def _row_problems(row: _Row, t5_limit: int) -> Iterator[Problem]:
    path = row.sample.path
    if row.enlarged > _MUCH_ENLARGED:
        size = f"{row.sample.width} x {row.sample.height}"
        message = f"The picture is small ({size}) and enlarged {row.enlarged:.1f} times"
        hint = "Use a larger original, a lower resolution, or dataset.buckets.no_upscale."
        yield problem(path, "enlarged", "warning", message, hint)
    if 1 - row.kept > _MUCH_CROPPED:
        message = f"The crop keeps only {row.kept:.0%} of the picture"
        yield problem(path, "cropped", "warning", message, "Crop it yourself to what matters, or widen the buckets.")
    if row.tokens and row.tokens.t5 > t5_limit:
        message = f"The caption has {row.tokens.t5} T5 tokens; what follows token {t5_limit} is not read"
        yield problem(path, "t5-overflow", "warning", message, "Shorten it.")
    if row.tokens and row.tokens.clip > CLIP_LIMIT:
        message = f"The caption has {row.tokens.clip} CLIP tokens; CLIP reads {CLIP_LIMIT}, T5 the rest"
        yield problem(
            path, "clip-overflow", "warning", message, "Usually harmless with FLUX.1: put what matters first."
        )


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


def _codes_by_path(problems: list[Problem]) -> dict[str, list[str]]:
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
        "width": sample.width,
        "height": sample.height,
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


def _summary(rows: list[_Row], problems: list[Problem]) -> dict[str, Any]:
    severities = Counter(found.severity for found in problems)
    return {
        "images": len(rows),
        "regularization_images": sum(row.sample.regularization for row in rows),
        "per_epoch": sum(row.sample.repeats for row in rows),
        "buckets": len({(row.placement.bucket_w, row.placement.bucket_h) for row in rows}),
        "errors": severities["error"],
        "warnings": severities["warning"],
    }
