"""Widgets, one per file, each with its bindings and messages."""
