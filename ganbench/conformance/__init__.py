"""Checks of losses, penalties, critics, updates and metrics against answers that are known from theory.

Each check is a generator of `Check` rows. `python -m ganbench.conformance` prints them; the tests run the same checks,
also on deliberately wrong versions.
"""
