"""Nets: generators map z [N, z_dim] to samples, critics map samples to raw logits [N], each sample by itself."""
