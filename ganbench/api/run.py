"""Use a run from a script or a notebook: its generator, samples, records and scores."""

import base64
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import escape
from omegaconf import DictConfig

from ganbench.api.process import as_in_its_own, importable_from_here
from ganbench.config.compose import method_label
from ganbench.config.messages import UNREADABLE, one_line_error
from ganbench.config.validate import check_device
from ganbench.errors import Refused
from ganbench.files import written_whole
from ganbench.report.load import load_runs
from ganbench.runs.status import read_status
from ganbench.sweeps.outcomes import describe_status, from_here, ranked_score
from ganbench.trained.command_line import check_new, is_named_as_file
from ganbench.trained.evaluations import compose_metric, with_metric
from ganbench.trained.folder import RunFolder, check_is_run, load_settings, open_run, tell_if_unfinished
from ganbench.trained.rescore import evaluate_once

if TYPE_CHECKING:  # these take seconds
    import numpy as np
    import pandas as pd
    from torch import nn

    from ganbench.trained.generator import Trained


def load(folder: str | Path, device: str | None = None) -> "Run":
    """Open the folder of a run, to be used on its own device or on another. Raise Refused for a folder that is none."""
    if not isinstance(folder, str | Path):
        raise Refused(f"load({folder!r}) is no folder; pass that of a run, such as outputs/run/mine.")
    check_is_run(Path(folder))
    if device is not None and not isinstance(device, str):
        raise Refused(f"device={device!r} must be a text, such as 'cpu' or 'cuda:1'.")
    if device is not None:
        check_device(device)
    run = Run(Path(folder).absolute(), device)
    _ = run.config  # now, so that a damaged one is refused here
    return run


class Run:
    """A run on disk. Its generator is the averaged one of the newest checkpoint."""

    def __init__(self, folder: Path, device: str | None = None):
        self.folder = folder
        self.device = device

    @cached_property
    def config(self) -> DictConfig:
        """Return the settings of the run."""
        return load_settings(self.folder)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what status.json says."""
        return read_status(self.folder)

    @property
    def status(self) -> str:
        """Return finished, diverged, interrupted, failed or running."""
        return self.facts["status"]

    @property
    def method(self) -> str:
        return method_label(self.config)

    @property
    def generator(self) -> "nn.Module":
        """Return the net that maps z [N, z_dim] to samples, images in [-1, 1]; in eval mode, without gradients."""
        return self._trained.G

    def sample(self, n: int, seed: int | None = None) -> "np.ndarray":
        """Draw n samples: images [N, H, W, C] of uint8, or points [N, 2].

        Without a seed the first are those that the run's last evaluation scored.
        """
        if type(n) is not int or n < 1:
            raise Refused(f"sample({n!r}): the number of samples must be a whole number, 1 or more.")
        if seed is not None and type(seed) is not int:
            raise Refused(f"seed={seed!r} must be a whole number, or None for the run's own.")
        trained = self._trained
        with as_in_its_own(self.config):
            from ganbench.trained.generator import configure
            from ganbench.trained.samples import as_array, draw

            configure(trained.cfg)
            return as_array(draw(trained, n, trained.cfg.seed if seed is None else seed), n)

    def metrics(self) -> "pd.DataFrame":
        """Return the run's records, a row for each number of real images seen."""
        import pandas as pd

        rows: dict[int, dict[str, Any]] = {}
        (records,) = load_runs(self.folder)
        if records.status == "unreadable":
            raise Refused(f"{from_here(self.folder)} cannot be read ({records.reason}); pass another run.")
        for row in records.rows:
            rows.setdefault(row["images"], {}).update(row)
        return pd.DataFrame(list(rows.values()))

    def score(
        self, metric: str | None = None, *overrides: str, config_dir: str | Path | None = None, force: bool = False
    ) -> float:
        """Return the final score, or that by another metric, which is recorded as by `python -m ganbench.evaluate`.

        It is infinite for a run that has none. Overrides are settings of the metric: `metric.n_fake=5000`.
        """
        if metric is None:
            return ranked_score(self.facts)
        with as_in_its_own(self.config):
            run = self._open()
            tell_if_unfinished(run)
            try:
                settings = compose_metric(metric, list(overrides), None if config_dir is None else Path(config_dir))
                run = with_metric(run, settings)
            except UNREADABLE as error:
                raise Refused(one_line_error(error)) from None
            evaluation, _ = evaluate_once(run, force)
        return float("inf") if evaluation["score"] is None else evaluation["score"]

    def save(self, out: str | Path) -> Path:
        """Write the weights into a new file NAME.safetensors, or what `python -m ganbench.export` writes into a folder.

        Both load without Hydra and W&B.
        """
        out = Path(out)
        is_weights = out.suffix == ".safetensors"
        if is_named_as_file(out) and not is_weights:
            raise Refused(f"{out} must end in .safetensors, for the weights in one file, or be the name of a folder.")
        check_new(out, flag="")
        run = self._open()
        with as_in_its_own(self.config), written_whole(out) as place:
            from ganbench.trained.generator import load_generator
            from ganbench.trained.package import write_package, write_weights

            trained = load_generator(run)
            if is_weights:
                write_weights(trained, place)
            else:
                write_package(run, trained, place)
        return out

    @cached_property
    def _trained(self) -> "Trained":
        with as_in_its_own(self.config):
            run = self._open()
            tell_if_unfinished(run)
            from ganbench.trained.generator import configure, load_generator

            return load_generator(run, configure(run.cfg))

    def _open(self) -> RunFolder:
        with importable_from_here():
            return open_run(self.folder, self.device)

    def __repr__(self) -> str:
        return f"<{self.method} on {self.config.dataset.name}: {self._end}; {from_here(self.folder)}>"

    @property
    def _end(self) -> str:
        """Say how the run ended, with which score, and what real data score."""
        facts = self.facts
        metric = self.config.metric.name
        reference = (facts.get("real_reference") or {}).get(metric)
        end = describe_status(facts)
        if facts["status"] != "finished" or reference is None:
            return end
        return f"{end.replace(', score', f', {metric}')} (real data: {reference:.4g})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how the run ended, and its last picture."""
        pictures = sorted((self.folder / "samples").glob("*.png"))
        shown = ""
        if pictures:
            data = base64.b64encode(pictures[-1].read_bytes()).decode()
            shown = f'<br><img alt="samples of {escape(self.method)}" src="data:image/png;base64,{data}">'
        where = escape(str(from_here(self.folder)))
        title = f"<b>{escape(self.method)}</b> on {escape(self.config.dataset.name)}, seed {self.config.seed}"
        return f"<div>{title}: {escape(self._end)}<br><code>{where}</code>{shown}</div>"
