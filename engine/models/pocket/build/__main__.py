"""``python -m engine.models.pocket.build``: make the pocket model's files, stage by stage.

Each stage may be stopped at any time and goes on where it was; a stage that is finished is skipped. The two
long ones, `decoder` and `transformer`, need not wait for each other and may run side by side in two processes.
The same machine, libraries and number of threads give the same bits.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: spinning threads starve each other on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

FILES = Path(__file__).parent.parent / "files"


def stages(files: Path) -> dict[str, Callable[[], object]]:
    """All stages in order."""
    from engine.models.pocket.build import autoencoder, demo, export, text, transformer, vocabulary

    def tokenizers() -> None:
        vocabulary.write_clip(files / "tokenizer")
        vocabulary.write_t5(files / "tokenizer_2")

    def written() -> None:
        export.export_autoencoder(files)
        export.export_transformer(files)

    return {
        "tokenizers": tokenizers,
        "encoder": autoencoder.make_encoder,
        "text": lambda: text.train_text(files),
        "pool": transformer.make_pool,
        "transformer": lambda: transformer.train_transformer(files),
        "decoder": autoencoder.train_decoder,
        "export": written,
        "demo": lambda: demo.write_demo(files.parent / "demo"),
    }


def main() -> None:
    """Run all stages, or the named ones."""
    parser = argparse.ArgumentParser(prog="python -m engine.models.pocket.build", description=__doc__)
    parser.add_argument("stage", nargs="*", help="only these stages (default: all, in order)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU; another number gives other bits")
    parser.add_argument("--files", type=Path, default=FILES, help="where the files go")
    arguments = parser.parse_args()

    import torch

    from engine.models.pocket.build import draws

    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    known = stages(arguments.files)
    unknown = [name for name in arguments.stage if name not in known]
    if unknown:
        parser.error(f"no stage {unknown[0]!r}; there are: {', '.join(known)}")
    for name in arguments.stage or known:
        done = draws.WORK / f"{name}.done"
        if not arguments.stage and done.exists():
            print(f"{name}: done before", flush=True)
            continue
        began = time.monotonic()
        known[name]()
        draws.WORK.mkdir(parents=True, exist_ok=True)
        done.write_text("")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
