"""Use runs after training: load a generator, draw its samples, export it, score it by another metric."""
