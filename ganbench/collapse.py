"""Has the generator stopped listening to z? Told from its samples, and from the records of a run alone."""

from typing import Any

from torch import Tensor

from ganbench.data import to_float

LEAST, IN_A_ROW = 1e-3, 3


def spread(fake: Tensor, real: Tensor, n: int = 1000) -> float:
    """The mean over coordinates of the standard deviation between samples, over that of reals; of the first n of each.

    Near 1 for a good generator, 0 for one that makes the same of every z; not finite for reals that are all the same.
    """
    of_fake, of_real = (to_float(x[:n]).flatten(1).std(0).mean() for x in (fake, real))
    return float(of_fake / of_real)


def collapsed(rows: list[dict[str, Any]]) -> int | None:
    """The real images at the third evaluation in a row with g_spread below 0.001, of a run's records; None if never."""
    told = [row for row in rows if "g_spread" in row]
    flat = [row["g_spread"] is not None and row["g_spread"] < LEAST for row in told]
    third = (i for i in range(IN_A_ROW - 1, len(told)) if all(flat[i - IN_A_ROW + 1 : i + 1]))
    return next((told[i]["images"] for i in third), None)
