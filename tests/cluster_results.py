"""What tests of sweeps on clusters ask of a sweep's folder."""

import json
import time
from collections.abc import Callable
from pathlib import Path


def statuses(folder: Path) -> dict[str, str]:
    """Return how each run has ended, by the name of its folder."""
    return {file.parent.name: json.loads(file.read_text())["status"] for file in sorted(folder.glob("*/status.json"))}


def assert_same_results(a: Path, b: Path) -> None:
    """Two sweeps ended alike, with the same records and the same pictures."""
    assert statuses(a) == statuses(b)
    for run in statuses(a):
        if (a / run / "metrics.jsonl").exists():
            assert _records(a / run) == _records(b / run), run
            assert _pictures(a / run) == _pictures(b / run), run


def wait_for(happened: Callable[[], object]) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.2)
    raise TimeoutError("It has not happened after two minutes.")


def _records(run: Path) -> list[dict]:
    """Return a run's records without what depends on the machine's speed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("t_")} for row in rows]


def _pictures(run: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((run / "samples").glob("*.png"))]
