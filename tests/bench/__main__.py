"""All benchmarks, written to a dated file: ``python -m tests.bench FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import (
    bench_batch,
    bench_dataset,
    bench_detached,
    bench_keys,
    bench_overhead,
    bench_saving,
    bench_startup,
    bench_ui,
)
from tests.bench.figures import write_figures

if __name__ == "__main__":
    parts = (
        ("Answering", bench_startup),
        ("Drawing", bench_ui),
        ("Dataset", bench_dataset),
        ("Many captions at once", bench_batch),
        ("Training", bench_overhead),
        ("Saving", bench_saving),
        ("Typing", bench_keys),
        ("Detached", bench_detached),
    )
    body = "\n\n".join(f"## {title}\n\n{bench.report()}" for title, bench in parts)
    print(body)
    write_figures(Path(sys.argv[1]), "Benchmarks", body)
