"""Compare GAN losses on equal footing."""

__version__ = "0.3.0"
