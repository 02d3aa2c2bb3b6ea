from torch.nn.functional import softplus


class Relaxed:
    """Non-saturating loss on logits divided by a temperature."""

    def __init__(self, temperature: float = 1.0):
        self.t = temperature

    def d(self, real, fake):  # raw logits [N] in, a scalar out
        return softplus(-real / self.t).mean() + softplus(fake / self.t).mean()

    def g(self, fake):  # or g(self, fake, real), to see both
        return softplus(-fake / self.t).mean()
