"""The terminal: probing it, driving it, and the host that outlives it."""
