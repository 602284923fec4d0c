"""The contact sheet: a run's pictures as one PNG, prompts down and epochs across, to post or to print.

Made from the small pictures of the page, which are ours: no file of the run is opened here.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.files import atomic_path
from engine.text import safe_text
from tui.epochs import Prompt
from tui.reporting.facts import RunFacts
from tui.reporting.grid import badges, epoch_name
from tui.reporting.pictures import Key, Picture, Pictures
from tui.reporting.plan import by_weight, own_key, sample_key

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as FallbackFont

MOST = 8000
"""Pixels a side at most: what programs that show pictures open without trouble."""

CELL, LEAST_CELL = 256, 96
LABEL, HEAD, GAP = 240, 64, 6
MARKER = b"lorakiln contact sheet"
"""What such a file says that it was made by."""

PAPER, INK, FAINT, ACCENT, TINT = "#ffffff", "#1c1b19", "#77726a", "#8f4410", "#fbeedd"


def write_sheet(target: Path, facts: RunFacts, pictures: Pictures, run: int = 0) -> bool:
    """Write the sheet of one run; False, and no file, where there is no picture to put on it.

    Raises:
        DiskError: it cannot be written; what stood there is unharmed.
    """
    from PIL.PngImagePlugin import PngInfo

    sheet = draw_sheet(facts, pictures, run)
    if sheet is None:
        return False
    made_by = PngInfo()
    made_by.add_text("Software", MARKER.decode())
    with atomic_path(target) as temp:
        sheet.save(temp, "PNG", pnginfo=made_by)
    return True


def draw_sheet(facts: RunFacts, pictures: Pictures, run: int = 0) -> Image | None:
    """The sheet, at full strength; with fewer epochs where all would be too small to see."""
    from PIL import Image as pillow
    from PIL import ImageDraw as drawing

    own = any(own_key(run, prompt.index) in pictures.made for prompt in facts.prompts)
    prompts = facts.prompts[: (MOST - 2 * HEAD) // (LEAST_CELL + GAP)]
    epochs = _epochs(facts, pictures, run, (MOST - LABEL) // (LEAST_CELL + GAP) - own)
    if not epochs or not prompts:
        return None
    columns = len(epochs) + own
    cell = min(CELL, (MOST - LABEL) // columns - GAP, (MOST - 2 * HEAD) // len(prompts) - GAP)
    size = LABEL + columns * (cell + GAP), 2 * HEAD + len(prompts) * (cell + GAP)
    sheet = pillow.new("RGB", size, PAPER)
    draw = drawing.Draw(sheet)
    _title(draw, facts, len(epochs), size[0])
    _heads(draw, facts, epochs, cell, own, size[1])
    for row, prompt in enumerate(prompts):
        top = 2 * HEAD + row * (cell + GAP)
        _prompt(draw, prompt, top, cell)
        keys: list[Key] = [own_key(run, prompt.index)] if own else []
        keys += [sample_key(run, epoch, prompt.index, facts.main_strength) for epoch in epochs]
        for column, key in enumerate(keys):
            _put(sheet, draw, pictures.made.get(key), LABEL + column * (cell + GAP), top, cell)
    return sheet


def _epochs(facts: RunFacts, pictures: Pictures, run: int, most: int) -> list[int]:
    """Those with a picture, the most telling ``most`` of them, in order."""
    drawn = {key[2] for key in pictures.made if key[:2] == ("sample", run)}
    return sorted([epoch for epoch in by_weight(facts) if epoch in drawn][:most])


def _font(size: int) -> FreeTypeFont | FallbackFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _write(draw: ImageDraw, x: float, y: float, text: str, size: int, color: str, width: float = 0) -> None:
    """One line; one that is wider than ``width`` ends in an ellipsis."""
    font = _font(size)
    shown = safe_text(text, 400)
    while width and len(shown) > 1 and draw.textlength(shown, font=font) > width:
        shown = shown[: max(1, len(shown) * 9 // 10 - 1)].rstrip("…") + "…"
        if len(shown) <= 2:
            break
    draw.text((x, y), shown, fill=color, font=font)


def _title(draw: ImageDraw, facts: RunFacts, shown: int, width: int) -> None:
    advice = facts.advice
    words = f"{facts.name}   {facts.view.family} {facts.view.variant}".rstrip()
    _write(draw, GAP, 8, words, 28, INK, width - 2 * GAP)
    told = [f"recommended: epochs {advice.first} to {advice.last}"] if advice.best else []
    told += [f"chosen: epoch {facts.judged.chosen}"] if facts.judged.chosen else []
    told += [f"trigger: {facts.trigger}"] if facts.trigger else []
    told += [f"{shown} of {len(facts.epochs)} epochs"] if shown < len(facts.epochs) else []
    _write(draw, GAP, 42, "   ".join(told), 16, FAINT, width - 2 * GAP)


def _heads(draw: ImageDraw, facts: RunFacts, epochs: Sequence[int], cell: int, own: bool, height: int) -> None:
    if own:
        _write(draw, LABEL, HEAD + 14, "dataset", 18, FAINT, cell)
    for column, epoch in enumerate(epochs, start=int(own)):
        x = LABEL + column * (cell + GAP)
        if facts.is_advised(epoch):
            draw.rectangle((x - GAP // 2, HEAD + 6, x + cell + GAP // 2, height), fill=TINT)
            draw.rectangle((x - GAP // 2, HEAD + 2, x + cell + GAP // 2, HEAD + 7), fill=ACCENT)
        color = ACCENT if facts.is_advised(epoch) else INK
        _write(draw, x, HEAD + 10, "base" if epoch == 0 else epoch_name(epoch), 18, color, cell)
        _write(draw, x, HEAD + 34, ", ".join(_plain(badges(facts, epoch))), 14, color, cell)


def _plain(found: Sequence[str]) -> list[str]:
    """Badges in letters that the font has."""
    return [f"{len(badge)} of 5" if "★" in badge else badge for badge in found]


def _prompt(draw: ImageDraw, prompt: Prompt, top: int, cell: int) -> None:
    lines = textwrap.wrap(safe_text(prompt.text, 600), 26)
    room = max(1, (cell - 22) // 20)
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1] + "…"] if room > 1 else [lines[0] + "…"]
    for number, line in enumerate(lines):
        _write(draw, GAP, top + number * 20, line, 16, INK, LABEL - 2 * GAP)
    small = f"{prompt.kind}  seed {prompt.seed}".strip()
    _write(draw, GAP, top + min(len(lines), room) * 20, small, 13, FAINT, LABEL - 2 * GAP)


def _put(sheet: Image, draw: ImageDraw, picture: Picture | None, x: int, y: int, cell: int) -> None:
    """A picture in the middle of its cell, enlarged in whole pixels where it is tiny."""
    from PIL import Image as pillow

    if picture is None:
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=FAINT)
        return
    with pillow.open(io.BytesIO(picture.data), formats=["WEBP"]) as opened:
        image = opened.convert("RGB")
    part = cell / max(image.size)
    method = pillow.Resampling.NEAREST if picture.is_tiny and part > 1 else pillow.Resampling.LANCZOS
    shown = image.resize((max(1, round(image.width * part)), max(1, round(image.height * part))), method)
    sheet.paste(shown, (x + (cell - shown.width) // 2, y + (cell - shown.height) // 2))
