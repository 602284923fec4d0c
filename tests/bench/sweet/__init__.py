"""The sweet spot put to the test: pocket runs are recorded with an oracle's score, the advisor is held to it.

``python -m tests.bench.sweet.record [NAME ...]`` trains and scores, ``python -m tests.bench.sweet.check`` compares,
``python -m tests.bench.sweet.look [NAME ...]`` shows the curves as text.
"""
