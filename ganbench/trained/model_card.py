"""Write the model card of an exported generator. Needs no torch."""

import json
from typing import Any

from omegaconf import OmegaConf

from ganbench import __version__
from ganbench.config.compose import identifying_settings
from ganbench.errors import Refused
from ganbench.report.load import Run, load_runs
from ganbench.trained.evaluations import Evaluation, read_evaluations
from ganbench.trained.folder import RunFolder

CARD = """# {title}

The averaged generator of a GAN that ganbench trained: it maps z [N, {z_dim}], standard normal noise, to {samples}.

```python
import torch
from load_generator import load  # of this folder
samples = load()(torch.randn(16, {z_dim}))
```

This needs {needs}.

{table}

License: MIT, that of ganbench and its nets. For weights the terms of the data count, too, here {dataset}.

## Settings

```yaml
{settings}```

## Footing

Scores can be compared with those of runs that have the same `equal`.

```json
{footing}
```
"""


def model_card(run: RunFolder, images: int) -> str:
    """Describe the generator of a run whose critic had seen so many real images."""
    (loaded,) = load_runs(run.folder)
    if loaded.status == "unreadable":
        raise Refused(f"{run.folder} cannot be read ({loaded.reason}), so its model card cannot be written.")
    cfg = run.cfg
    shape = ", ".join(map(str, cfg.dataset.shape))
    return CARD.format(
        title=f"{loaded.label} on {loaded.dataset}, seed {loaded.seed}",
        z_dim=cfg.model.z_dim,
        samples=f"images [N, {shape}] in [-1, 1]" if run.is_of_images else f"points [N, {shape}]",
        needs=_needs(run),
        table=_table(run, loaded, images),
        dataset=loaded.dataset,
        settings=OmegaConf.to_yaml(OmegaConf.create(identifying_settings(loaded.config))),
        footing=json.dumps(loaded.footing, indent=2),
    )


def _needs(run: RunFolder) -> str:
    """Name what must be installed."""
    package = run.cfg.model.generator["_target_"].partition(".")[0]
    if package == "ganbench":
        return f"torch, safetensors and ganbench {__version__}, but neither Hydra nor Weights & Biases"
    return f"torch, safetensors and what {package} imports"


def _table(run: RunFolder, loaded: Run, images: int) -> str:
    facts = loaded.facts
    rows = {
        "method": loaded.label,
        "data set": loaded.dataset,
        "score": _score(loaded, images),
        **{f"score by {each['metric']}": _other_score(each) for each in _evaluations(run)},
        "training": f"{images:,} of {loaded.config['protocol']['images']:,} real images; {loaded.status}",
        "checkpoint": run.checkpoint.name,
        "made by": f"ganbench {facts.get('ganbench')}, commit {facts.get('commit')}, torch {facts.get('torch')}, "
        f"{facts.get('device')}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _score(loaded: Run, images: int) -> str:
    """Say the score of this checkpoint, with its metric and protocol."""
    scored = [row for row in loaded.rows if row["images"] == images and loaded.metric in row]
    if not scored:
        return f"none: the run was not evaluated at {images:,} real images"
    return _described(loaded.metric, scored[-1], loaded.real_reference, loaded.footing["equal"])


def _other_score(evaluation: Evaluation) -> str:
    declared = (evaluation.get("metric_protocol") or {}).get("sentence")
    protocol = evaluation | {"n_real": evaluation["settings"].get("n_real"), "metric_protocol": declared}
    return _described(evaluation["metric"], evaluation["scores"], evaluation["real_reference"], protocol)


def _described(metric: str, scores: dict[str, Any], reference: dict[str, Any], protocol: dict[str, Any]) -> str:
    value = _written(scores[metric])
    real = _written(reference.get(metric))
    number = f"{metric} {value} (real data: {real}; lower is better)"
    if protocol.get("metric_protocol"):
        return f"{number}; {protocol['metric_protocol']}"
    against = f"{protocol['n_real'] or 'all'} {protocol['scored_on'].replace('_', '-')} samples"
    return f"{number}, {protocol['n_fake']} against {against}"


def _written(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _evaluations(run: RunFolder) -> list[Evaluation]:
    """Return the last evaluation of this checkpoint by each metric."""
    of_checkpoint = [each for each in read_evaluations(run.folder) if each["checkpoint"] == run.checkpoint.name]
    return list({each["metric"]: each for each in of_checkpoint}.values())
