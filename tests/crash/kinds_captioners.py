"""Kinds of files that captioning by machine reads: its drafts, a tagger's list of tags, a model's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.captioners.drafts import Draft, draft_path, save_draft
from engine.captioners.drafts import load_draft as load_draft
from engine.captioners.found import recognise
from engine.captioners.tags import read_tags as read_tags


def make_draft(folder: Path, which: int) -> Path:
    """A text that a machine made for a picture."""
    save_draft(
        folder / "a.png", Draft(f"a cat {which}, é", "joy (LLaVA)", "Describe it.", 1.5, 100 + which, "refused")
    )
    return draft_path(folder / "a.png", "joy (LLaVA)")


def make_tags(folder: Path, which: int) -> Path:
    """A tagger's list."""
    path = folder / "selected_tags.csv"
    path.write_text(f"tag_id,name,category,count\n1,general,9,3\n2,red_hair,0,{which}\n3,who_{which},4,2\n")
    return path


def make_config(folder: Path, which: int) -> Path:
    """What a captioning model says it is."""
    (folder / "model.safetensors").write_bytes(b"weights")
    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": "llava", "text_config": {"hidden_size": which}}))
    return path


def kind_of(path: Path) -> Any:
    """What the folder is taken for."""
    return recognise(path.parent).kind
