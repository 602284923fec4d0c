"""Writes what is known of a run as one HTML file that opens anywhere, without a network, and as a contact sheet.

The way through: :mod:`facts` reads a run's folder, :mod:`pictures` makes small pictures of it, :mod:`page` or
:mod:`several` put a page together from the sections, :mod:`writing` writes it. Whatever comes from outside becomes
part of a page through :mod:`markup` alone.
"""
