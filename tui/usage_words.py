"""How to use a LoRA that was trained here, in words to copy: for ComfyUI, Forge and A1111, and diffusers.

Pure: in goes how the file is called, in which layout it is and its trigger; out comes plain text, gated, for whoever
shows it (the epochs screen, the report). Nothing here asks whether the file is there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from engine.text import safe_text

STRENGTH = 0.8
"""Where to begin: what a LoRA adds is often a little too much at 1."""

LAYOUTS = ("kohya", "diffusers")

BASES = {"dev": "black-forest-labs/FLUX.1-dev", "schnell": "black-forest-labs/FLUX.1-schnell"}
"""What diffusers calls the base models, by the variant that a run names."""

_STEPS = {"dev": (28, 3.5), "schnell": (4, 0.0)}
"""Steps and guidance that a base model's publisher draws with."""


@dataclass(frozen=True)
class Usage:
    """One program: its ``title``, what to do in sentences, and the ``snippet`` to copy with its ``language``."""

    title: str
    words: str
    snippet: str
    language: str = "text"


def usages(name: str, layout: str = "kohya", trigger: str = "", variant: str = "dev") -> tuple[Usage, ...]:
    """All of them, in the order to show them.

    Args:
        name: the file's name, without folders.
        layout: of its keys, one of :data:`LAYOUTS`.
        trigger: the word that brings up what was learned; empty where there is none.
        variant: of the base model, as a run's events name it.
    """
    return comfyui(name, layout, trigger), forge(name, layout, trigger), diffusers(name, trigger, variant)


def comfyui(name: str, layout: str = "kohya", trigger: str = "", strength: float = STRENGTH) -> Usage:
    """ComfyUI's model-only node: text encoders are not trained here."""
    words = (
        "Put the file into ComfyUI/models/loras and press r in ComfyUI to find it. Between Load Diffusion Model and "
        "the sampler put the node LoraLoaderModelOnly: the text encoders were not trained."
    )
    if layout == "diffusers":
        words += " It reads the diffusers layout as well."
    lines = ["LoraLoaderModelOnly", f"  lora_name       {_text(name)}", f"  strength_model  {strength:g}"]
    lines.append(f"CLIP Text Encode (Prompt)\n  {_prompt(trigger)}")
    return Usage("ComfyUI", words, "\n".join(lines))


def forge(name: str, layout: str = "kohya", trigger: str = "", strength: float = STRENGTH) -> Usage:
    """Forge, and the same folder and words in A1111's other offspring; A1111 itself has no FLUX."""
    words = (
        "Put the file into models/Lora and press Refresh on the Lora tab; then write it into the prompt. Stable "
        "Diffusion WebUI of A1111 itself cannot run FLUX: use Forge, reForge or SD.Next."
    )
    if layout == "diffusers":
        words += " If a version does not know the diffusers layout, take the file of kohya's layout."
    stem = _text(name).removesuffix(".safetensors")
    odd = re.search(r"[<>:]", stem)
    if odd is not None:
        words += " Rename the file first: its name has signs that end the tag in a prompt."
    return Usage("Forge and A1111", words, f"<lora:{re.sub('[<>:]', '_', stem)}:{strength:g}> {_prompt(trigger)}")


def diffusers(name: str, trigger: str = "", variant: str = "dev", strength: float = STRENGTH) -> Usage:
    """A few lines of Python; both layouts load the same way."""
    base = BASES.get(variant, BASES["dev"])
    steps, guidance = _STEPS.get(variant, _STEPS["dev"])
    lines = (
        "import torch",
        "from diffusers import FluxPipeline",
        "",
        f"pipe = FluxPipeline.from_pretrained({_quoted(base)}, torch_dtype=torch.bfloat16)",
        f'pipe.load_lora_weights(".", weight_name={_quoted(_text(name))}, adapter_name="mine")',
        f'pipe.set_adapters("mine", {strength:g})',
        "pipe.enable_model_cpu_offload()",
        f"made = pipe({_quoted(_prompt(trigger))}, num_inference_steps={steps}, guidance_scale={guidance:g})",
        'made.images[0].save("picture.png")',
    )
    words = "Needs diffusers and peft; run it in the folder of the file. Both layouts load the same way."
    return Usage("diffusers", words, "\n".join(lines), "python")


def _prompt(trigger: str) -> str:
    """A prompt to begin with."""
    scene = "a photo, in soft light"
    return f"{_text(trigger)}, {scene}" if trigger.strip() else scene


def _text(text: str) -> str:
    return safe_text(text.strip(), 200)


def _quoted(text: str) -> str:
    """As a literal of Python: JSON's is one, quotes and backslashes kept from ending it."""
    return json.dumps(text, ensure_ascii=False)
