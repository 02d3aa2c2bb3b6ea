"""Metrics: built from the data once per run, called with generated samples; return named scores (see README.md)."""
