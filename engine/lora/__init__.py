"""Low-rank adapters: targets, the adapter itself, file formats, metadata."""
