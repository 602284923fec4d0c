"""Pictures in the terminals' own protocols: Kitty's and Sixel. Pure functions from pixels to what is written.

The sequences ask the terminal for no answer: one would arrive as if typed. Whoever writes them puts the cursor back
where it was (:func:`placed`), and takes Kitty's picture away when its place is needed: it lies over the text, while
text that is drawn over a Sixel picture wipes it out.
"""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHUNK = 4096
SIXEL_COLOURS = 64
"""Half the bytes of 256, and hardly a visible difference in a photograph."""


def kitty_picture(pixels: NDArray[np.uint8], number: int) -> str:
    """Hand ``pixels`` (height, width, 3) to the terminal as picture ``number``, not shown yet."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG", compress_level=6)
    data = base64.standard_b64encode(packed.getvalue()).decode()
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    parts = []
    for at, piece in enumerate(pieces):
        head = f"a=t,t=d,f=100,i={number},q=2," if at == 0 else "q=2,"
        parts.append(f"\x1b_G{head}m={int(at < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(parts)


def kitty_show(number: int, columns: int, rows: int) -> str:
    """Show picture ``number`` at the cursor, scaled to a box of cells."""
    return f"\x1b_Ga=p,i={number},p=1,c={columns},r={rows},C=1,q=2\x1b\\"


def kitty_forget(number: int) -> str:
    """Take picture ``number`` from the screen and from the terminal's memory."""
    return f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\"


def placed(sequence: str, column: int, row: int) -> str:
    """``sequence`` with the cursor at (``column``, ``row``), from 0, and back again."""
    return f"\x1b7\x1b[{row + 1};{column + 1}H{sequence}\x1b8"


def sixel_picture(pixels: NDArray[np.uint8], colours: int = SIXEL_COLOURS) -> str:
    """``pixels`` (height, width, 3) as a Sixel sequence of their size."""
    import numpy as np
    from PIL import Image

    reduced = Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    index = np.asarray(reduced)
    height, width = index.shape
    palette = reduced.getpalette() or []
    out = [f'\x1bP0;1;0q"1;1;{width};{height}']
    for colour in np.unique(index).tolist():
        red, green, blue = (value * 100 // 255 for value in palette[3 * colour : 3 * colour + 3])
        out.append(f"#{colour};2;{red};{green};{blue}")
    weights = np.array([1, 2, 4, 8, 16, 32], np.uint8)[:, None]
    for top in range(0, height, 6):
        band = index[top : top + 6]
        weight = weights[: band.shape[0]]
        lines = []
        for colour in np.unique(band).tolist():
            dots = ((band == colour) * weight).sum(axis=0, dtype=np.uint8) + 63
            lines.append(f"#{colour}{_packed(dots.tobytes().decode('ascii'))}")
        out.append("$".join(lines) + "-")
    out.append("\x1b\\")
    return "".join(out)


_REPEATED = re.compile(r"(.)\1{3,}")


def _packed(dots: str) -> str:
    """Runs of the same character as a count and the character; what is empty at the end is left out."""
    return _REPEATED.sub(lambda run: f"!{len(run.group())}{run.group(1)}", dots.rstrip("?"))
