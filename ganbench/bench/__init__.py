"""Benchmarks of what things cost, each timed in turns with its usual alternative: `make bench`.

Only ratios carry over to another machine.
"""
