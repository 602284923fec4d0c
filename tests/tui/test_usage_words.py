"""Words on using a LoRA: what can be copied works as it stands, whatever the file and the trigger are called."""

from __future__ import annotations

import ast

import pytest

from tui.usage_words import LAYOUTS, comfyui, diffusers, forge, usages

HOSTILE = 'x"); import os #\u202e<script>:\n'


def test_each_program_gets_the_file_the_trigger_and_a_strength() -> None:
    for usage in usages("owl-e0007.safetensors", trigger="ohwx owl"):
        assert "owl-e0007" in usage.snippet and "ohwx owl" in usage.snippet and "0.8" in usage.snippet
        assert usage.words and usage.title
    assert forge("owl.safetensors").snippet.startswith("<lora:owl:0.8> ")
    assert "LoraLoaderModelOnly" in comfyui("owl.safetensors").snippet


def test_no_trigger_leaves_no_comma_behind() -> None:
    assert all(", a photo" not in usage.snippet for usage in usages("owl.safetensors", trigger="  "))


@pytest.mark.parametrize("variant, base, steps", [("dev", "FLUX.1-dev", 28), ("schnell", "FLUX.1-schnell", 4)])
def test_python_is_that_of_the_base_model(variant: str, base: str, steps: int) -> None:
    snippet = diffusers("owl.safetensors", "ohwx", variant).snippet
    assert base in snippet and f"num_inference_steps={steps}" in snippet


def test_a_hostile_name_stays_a_text_in_python() -> None:
    tree = ast.parse(diffusers(f"{HOSTILE}.safetensors", HOSTILE).snippet)
    assert [node.names[0].name for node in tree.body if isinstance(node, ast.Import)] == ["torch"]
    names = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert any("import os" in name for name in names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hostile_name_cannot_end_the_tag_of_a_prompt(layout: str) -> None:
    usage = forge(f"{HOSTILE}a:b.safetensors", layout)
    tag = usage.snippet.split("> ")[0]
    assert tag.count("<") == 1 and tag.count(":") == 2
    assert "Rename" in usage.words
    assert "\u202e" not in usage.snippet and "\n" not in usage.snippet


def test_the_layout_is_told_where_it_matters() -> None:
    assert "kohya" in forge("owl.safetensors", "diffusers").words and "kohya" not in forge("owl.safetensors").words
