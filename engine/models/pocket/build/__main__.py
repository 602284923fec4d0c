"""``python -m engine.models.pocket.build``: make the pocket model's files, stage by stage.

Each stage may be stopped at any time and goes on where it was (the short ones begin again); a stage that is
finished is skipped. The decoder needs nothing but the encoder, so it trains in a process of its own beside the
transformer. The same machine, libraries and number of threads give the same bits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: spinning threads starve each other on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

FILES = Path(__file__).parent.parent / "files"
BESIDE = "decoder"  # trains beside the stages that follow it


def stages(files: Path) -> dict[str, Callable[[], object]]:
    """All stages in order."""
    from engine.models.pocket.build import autoencoder, demo, export, guidance, text, transformer, vocabulary

    def tokenizers() -> None:
        vocabulary.write_clip(files / "tokenizer")
        vocabulary.write_t5(files / "tokenizer_2")

    def written() -> None:
        export.export_autoencoder(files)
        export.export_transformer(files)

    return {
        "tokenizers": tokenizers,
        "encoder": autoencoder.make_encoder,
        "decoder": autoencoder.train_decoder,
        "text": lambda: text.train_text(files),
        "pool": transformer.make_pool,
        "transformer": lambda: transformer.train_transformer(files),
        "guidance": lambda: guidance.train_guidance(files),
        "export": written,
        "demo": lambda: demo.write_demo(files.parent / "demo"),
    }


def done_mark(name: str) -> Path:
    """The file that says that a stage is finished."""
    from engine.models.pocket.build import draws

    return draws.WORK / f"{name}.done"


def run_stage(name: str, work: Callable[[], object]) -> None:
    """Run one stage and say how long it took."""
    began = time.monotonic()
    print(f"{name}: begins", flush=True)
    work()
    mark = done_mark(name)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text("")
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def run_all(known: dict[str, Callable[[], object]], arguments: argparse.Namespace) -> None:
    """Run what is not yet done, the decoder in a second process; some 35 minutes on two idle cores."""
    beside: subprocess.Popen[bytes] | None = None
    for name, work in known.items():
        if name == "export" and beside is not None and beside.wait():
            raise SystemExit(f"the stage {BESIDE} failed with {beside.returncode}; run again to resume it")
        if done_mark(name).exists():
            print(f"{name}: done before", flush=True)
        elif name == BESIDE:
            program = [sys.executable, "-m", "engine.models.pocket.build", BESIDE]
            options = ["--threads", str(arguments.threads), "--files", str(arguments.files)]
            beside = subprocess.Popen(program + options)
        else:
            run_stage(name, work)


def main() -> None:
    """Run all stages, or the named ones."""
    parser = argparse.ArgumentParser(prog="python -m engine.models.pocket.build", description=__doc__)
    parser.add_argument("stage", nargs="*", help="only these stages, done or not (default: all that are not done)")
    parser.add_argument("--threads", type=int, default=1, help="of each process; another number gives other bits")
    parser.add_argument("--files", type=Path, default=FILES, help="where the files go")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    known = stages(arguments.files)
    unknown = [name for name in arguments.stage if name not in known]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}; there are: {', '.join(known)}")
    if not arguments.stage:
        run_all(known, arguments)
    for name in arguments.stage:
        run_stage(name, known[name])


if __name__ == "__main__":
    main()
