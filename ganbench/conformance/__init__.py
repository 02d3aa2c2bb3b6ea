"""Known answers: what theory says that losses, penalties, critics, steps and metrics do, held against the code.

Every check is a generator of rows. `python -m ganbench.conformance` prints them; the tests run the same ones, and
run them on deliberately wrong versions, too.
"""
