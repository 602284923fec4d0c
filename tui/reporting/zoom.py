"""Enlarging a picture: the dialog, and the few lines of script of a page. Without them only this is missing."""

from __future__ import annotations

import base64
import hashlib

from tui.reporting.markup import Markup, element

SCRIPT = """
"use strict";
(() => {
  const box = document.getElementById("zoom");
  const picture = document.getElementById("zoom-picture");
  const words = document.getElementById("zoom-words");
  let at = null;
  const show = (shot) => {
    const small = shot.querySelector("img");
    const prompt = shot.closest("tr").querySelector("th span:not(.badge)");
    at = shot;
    picture.src = small.src;
    picture.alt = small.alt;
    picture.className = small.className;
    const place = small.alt.split(":")[0];
    words.textContent = prompt ? place + ": " + prompt.textContent : small.alt;
    if (!box.open) box.showModal();
  };
  const walk = (across, down) => {
    const row = at.closest("tr");
    let next = null;
    if (across) {
      const shots = [...row.querySelectorAll("button.shot")];
      next = shots[shots.indexOf(at) + across];
    } else {
      const column = at.closest("td").cellIndex;
      let other = row;
      while (!next && (other = down > 0 ? other.nextElementSibling : other.previousElementSibling)) {
        const cell = other.cells[column];
        next = cell && cell.querySelector("button.shot");
      }
    }
    if (next) show(next);
  };
  const close = () => {
    box.close();
    at.focus();
  };
  const keys = {
    ArrowRight: () => walk(1, 0), ArrowLeft: () => walk(-1, 0),
    ArrowDown: () => walk(0, 1), ArrowUp: () => walk(0, -1), Escape: close,
  };
  document.addEventListener("click", (event) => {
    const shot = event.target.closest("button.shot");
    const key = event.target.closest("button[data-key]");
    if (shot) show(shot);
    else if (key) keys[key.dataset.key]();
    else if (event.target === box) close();
  });
  box.addEventListener("keydown", (event) => {
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  box.addEventListener("close", () => picture.removeAttribute("src"));
})();
"""

_BUTTONS = (
    ("ArrowLeft", "← epoch before"), ("ArrowRight", "epoch after →"), ("ArrowUp", "↑ prompt above"),
    ("ArrowDown", "prompt below ↓"), ("Escape", "close"),
)  # fmt: skip


def dialog() -> Markup:
    """The dialog that a picture is enlarged in; empty until then."""
    buttons = [element("button", words, type="button", data_key=key) for key, words in _BUTTONS]
    return element(
        "dialog",
        element("img", id="zoom-picture", alt=""),
        element("p", "", id="zoom-words", aria_live="polite"),
        element("div", *buttons, class_="zoom-keys"),
        id="zoom",
        aria_label="Enlarged picture",
    )


def script() -> Markup:
    """The script's element; it is a text of ours, which nothing from outside gets into."""
    return Markup(f"<script>{SCRIPT}</script>")


def script_hash() -> str:
    """What the policy of a page allows: this script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
