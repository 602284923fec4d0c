"""JSON with a checksum at its end, for the product's own files: a changed digit is seen, not believed.

The checksum (CRC-32 over all bytes before it) is the object's last value, so the text stays plain JSON for everybody
else, one line or many. What earlier versions wrote has none and is read as it stands: a single damage hits either the
checksum's name or what it covers. Files that people edit have none either.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

KEY = "crc32"
_TAIL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\s*\Z')
_TAIL_BYTES = 64


def sealed(text: str) -> str:
    """The text of a JSON object that is not empty, with its checksum."""
    head = text.rstrip().removesuffix("}").rstrip()
    return f'{head}, "{KEY}": "{zlib.crc32(head.encode()):08x}"}}'


def unsealed(data: bytes) -> Any:
    """The value of sealed JSON, or of JSON without a checksum; of an object ``crc32`` is still a part.

    Raises:
        ValueError: it is no JSON, nested too deep, or not what was sealed.
    """
    tail = _TAIL.search(data, max(0, len(data) - _TAIL_BYTES))
    if tail is not None and zlib.crc32(memoryview(data)[: tail.start()]) != int(tail[1], 16):
        raise ValueError("its checksum does not hold")
    try:
        return json.loads(data)
    except RecursionError as err:
        raise ValueError("it is nested too deep") from err
