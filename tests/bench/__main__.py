"""All benchmarks, written to a dated file: ``python -m tests.bench FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import bench_overhead, bench_startup
from tests.bench.figures import write_figures

if __name__ == "__main__":
    body = f"## Answering\n\n{bench_startup.report()}\n\n## Training\n\n{bench_overhead.report()}"
    print(body)
    write_figures(Path(sys.argv[1]), "Benchmarks", body)
