"""The fast path: blocks with hand-written backwards over packed weights, tested against the plain model."""
