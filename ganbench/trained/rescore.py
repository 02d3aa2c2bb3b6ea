"""Score a run by another metric, unless the same score is recorded already. Needs torch only where it is not."""

from ganbench.trained.evaluations import Evaluation, record, recorded
from ganbench.trained.folder import RunFolder


def evaluate_once(run: RunFolder, force: bool = False) -> tuple[Evaluation, bool]:
    """Return the evaluation of a run by the metric in its settings, and whether it was recorded before.

    One that was not, or with `force`, is computed and recorded now.
    """
    earlier = None if force else recorded(run)
    if earlier is not None:
        return earlier, True
    from ganbench.trained.scoring import evaluate  # only now, since it imports torch

    evaluation = evaluate(run)
    record(run.folder, evaluation)
    return evaluation, False
