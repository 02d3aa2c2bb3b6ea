"""Metrics: built from the data, called with generated samples, they return named numbers.

A metric has `name` (the key of the ranked score), `n_fake` (how many samples it wants) and `floor` (what real
training data score).
"""
