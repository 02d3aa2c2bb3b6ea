"""Weights & Biases shows a sweep as the report does: a saved workspace and a W&B report, made from its folder."""
