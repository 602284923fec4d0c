"""Does with lorakiln what users do, one command after the other in one process; run by test_offline.py."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tui.__main__ import main


def commands(config: Path, data: Path, models: Path, run: Path) -> list[list[str]]:
    """Every command that needs no terminal; what a later one looks at, an earlier one has made."""
    return [
        ["--version"], ["--help"],
        ["doctor", "--json"],
        ["config", "check", str(config)],
        ["dataset", "check", str(data)],
        ["models", "inspect", str(models / "flux-pocket.safetensors")],
        ["plan", str(config)],
        ["train", str(config)],
        ["runs", str(run.parent)],
        ["sweep", str(config), "--dry-run"],
        ["sample", str(run), "--prompt", "a zorple", "--steps", "1"],
        ["blend", str(run), "--files", *[str(run / f"{run.name}.safetensors")] * 2],
        ["new", "mine", "--out", str(config.with_name("mine.toml"))],
    ]  # fmt: skip


async def look(folder: Path) -> None:
    """Open the workstation, and what it offers first."""
    from tui.app import KilnApp
    from tui.workplace import Workplace

    workplace = Workplace(folder)
    app = KilnApp(workplace)
    async with app.run_test(size=(120, 40)) as pilot:
        for key in ("ctrl+n", "escape", "r", "escape", "question_mark", "escape"):
            await pilot.press(key)
            await pilot.pause()
    workplace.close()


if __name__ == "__main__":
    config, data, models, run = map(Path, sys.argv[1:])
    for words in commands(config, data, models, run):
        code = main(words)
        print(f"COMMAND {words[0]} {code}", flush=True)
    asyncio.run(look(config.parent))
    print("COMMAND look 0", flush=True)
