from ganbench.penalties import input_gradient_norm, interpolate


def target_gp(D, real, fake, rng, weight: float, target: float = 1.0):
    """Two-sided gradient penalty between real and fake samples, with any target norm."""
    x = interpolate(real, fake, rng)  # rng is the only source of noise
    return weight * (input_gradient_norm(D, x) - target).square().mean()
