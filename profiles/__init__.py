"""Chooses settings: recipes as data, and pure functions over them."""
