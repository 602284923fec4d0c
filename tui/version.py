"""The version; not asked of the package's metadata, which alone takes a twentieth of the time to the first frame."""

from __future__ import annotations

VERSION = "0.1.0"
"""The same as in pyproject.toml; a test compares them."""
