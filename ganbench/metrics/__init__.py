"""Metrics: built from the data, called with generated samples, they return named numbers."""
