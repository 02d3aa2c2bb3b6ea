"""Train the classifier of `metric=fd_lenet`: `python -m ganbench.metrics.train_lenet FASHION_MNIST_FOLDER`.

Trains on the 4,000 training digits of mnist5k and the 60,000 training clothes of Fashion-MNIST, with small shifts.
Writes lenet.safetensors, and prints the accuracy on held-out digits and clothes and the SHA-256 for known_weights.py.
"""

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ganbench import datasets, randomness
from ganbench.metrics.features import LENET_WEIGHTS, LeNet

STEPS = 6000
BATCH = 256  # half digits, half clothes


def main(folder: Path) -> None:
    """Train, report and save; `folder` holds the four gzipped files of Fashion-MNIST."""
    torch.set_num_threads(2)
    digits = _digits()
    clothes = _clothes(folder)
    with randomness.seeded_initialization(0, "lenet"):
        net = LeNet(weights="")
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        rng = randomness.generator(0, "lenet/batch", step)
        some_digits, digit_labels = _draw(*digits["train"], rng)
        some_clothes, clothes_labels = _draw(*clothes["train"], rng)
        images = torch.cat([some_digits, some_clothes])
        labels = torch.cat([digit_labels, clothes_labels])
        loss = cross_entropy(net.logits(_shift(images, rng)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 499:
            print(f"step {step + 1}: loss {loss:.4f}", flush=True)
    standardize(net, torch.cat([part["train"][0][:4000] for part in (digits, clothes)]))
    for name, part in (("digits", digits), ("clothes", clothes)):
        print(f"accuracy on {len(part['test'][0])} held-out {name}: {_accuracy(net, *part['test']):.4f}")
    save_file(net.state_dict(), LENET_WEIGHTS)
    print(f'LENET_SHA256 = "{hashlib.sha256(LENET_WEIGHTS.read_bytes()).hexdigest()}"')


@torch.no_grad()
def standardize(net: LeNet, images: Tensor) -> None:
    """Scale the features to a mean variance of 1 over `images`, and the head's weights back: the same classifier."""
    scale = torch.cat([net(part) for part in images.split(1000)]).var(0).mean().sqrt()
    last = net.body[-2]
    assert isinstance(last, nn.Linear)
    last.weight.div_(scale)
    last.bias.div_(scale)
    net.head.weight.mul_(scale)


Labeled = tuple[Tensor, Tensor]  # images [N, 1, 32, 32] and labels [N]


def _digits() -> dict[str, Labeled]:
    (_, train), (_, test) = datasets.mnist5k_labeled()
    split = datasets.mnist5k()
    return {"train": (split.train, train), "test": (split.test, test)}


def _clothes(folder: Path) -> dict[str, Labeled]:
    split = datasets.fashion_mnist(str(folder))
    labels = []
    for part in ("train", "t10k"):
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as stream:
            labels.append(torch.from_numpy(np.frombuffer(stream.read(), np.uint8, offset=8).astype(int)) + 10)
    return {"train": (split.train, labels[0]), "test": (split.test, labels[1])}


def _draw(images: Tensor, labels: Tensor, rng: torch.Generator) -> Labeled:
    """Draw half a batch, with replacement."""
    index = torch.randint(len(images), (BATCH // 2,), generator=rng)
    return images[index], labels[index]


def _shift(images: Tensor, rng: torch.Generator) -> Tensor:
    """Move the whole batch by up to two pixels in each direction."""
    dy, dx = torch.randint(-2, 3, (2,), generator=rng).tolist()
    return images.roll((dy, dx), (2, 3))


@torch.no_grad()
def _accuracy(net: LeNet, images: Tensor, labels: Tensor) -> float:
    guesses = torch.cat([net.logits(part).argmax(1) for part in images.split(1000)])
    return float((guesses == labels).double().mean())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
