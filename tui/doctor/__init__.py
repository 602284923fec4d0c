"""`kiln doctor`'s checks: pure functions from what was read to findings, one file an area."""
