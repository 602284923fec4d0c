"""Benchmarks: what the engine and the screen cost. Run by `make bench`, figures go to docs/figures."""
