"""Shows and edits: the `kiln` command and the full-screen terminal. No torch, no training logic."""
