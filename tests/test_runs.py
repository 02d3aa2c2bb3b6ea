"""Whole runs: what they record, and what must be equal between them."""

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PATIENCE, RING, SIX, TINY, ganbench, rows, settings, until
from PIL import Image

from ganbench import datasets
from ganbench.config.compose import build
from ganbench.runs import checkpoint
from ganbench.training.evaluate import sample
from ganbench.training.pictures import sample_picture
from ganbench.training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny run of each method at the same seed."""
    folders = {name: tmp_path_factory.mktemp(name) for name in SIX.split(",")}
    for name, folder in folders.items():
        train(settings(f"loss={name}", *TINY), folder)
    return folders


def test_equal_seeds_give_equal_weights_batches_and_noise(six: dict[str, Path]) -> None:
    """Before the first update nothing has seen the loss: scores, slopes, samples and first logits are the same."""
    recorded = {name: rows(folder) for name, folder in six.items()}
    assert len({json.dumps(r[0]) for r in recorded.values()}) == 1
    assert recorded["gan"][0]["images"] == 0 and recorded["gan"][0]["fd_lenet"] is not None
    assert len({(r[1]["images"], r[1]["d_real"], r[1]["d_fake"]) for r in recorded.values()}) == 1
    assert len({(folder / "samples/000000000.png").read_bytes() for folder in six.values()}) == 1
    # Inside its margins hinge is WGAN, and lp is silent below slope 1, so those two may still agree.
    assert len({json.dumps(r[-1]) for r in recorded.values()}) >= 5


def test_another_seed_changes_all_of_it(six: dict[str, Path], tmp_path: Path) -> None:
    train(settings("loss=gan", "seed=1", *TINY), tmp_path)
    ours, theirs = rows(tmp_path), rows(six["gan"])
    assert ours[0]["fd_lenet"] != theirs[0]["fd_lenet"]
    assert ours[1]["d_real"] != theirs[1]["d_real"]
    assert (tmp_path / "samples/000000000.png").read_bytes() != (six["gan"] / "samples/000000000.png").read_bytes()


@pytest.mark.parametrize("name", ["gan", "dragan"])
def test_the_same_seed_twice_gives_the_same_records(name: str, six: dict[str, Path], tmp_path: Path) -> None:
    torch.rand(5)  # the global generator's state must not matter
    train(settings(f"loss={name}", *TINY), tmp_path)
    assert rows(tmp_path) == rows(six[name])
    ours, theirs = (checkpoint.load(f) for f in (tmp_path, six[name]))
    assert all(torch.equal(ours["average"][k], v) for k, v in theirs["average"].items())


def test_a_process_from_scratch_computes_the_same(six: dict[str, Path], tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes."""
    for seed in ("1", "2"):
        done = ganbench("loss=dragan", *TINY, f"name={seed}", cwd=tmp_path, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        assert rows(tmp_path / "outputs/run" / seed) == rows(six["dragan"])


@pytest.mark.parametrize("norm", ["instance", "spectral"])
def test_evaluating_more_often_changes_nothing(norm: str, tmp_path: Path) -> None:
    finals = []
    for n in (1, 4):
        cfg = settings("loss=wgan-gp", *TINY, f"protocol.evaluations={n}", f"model.critic_norm={norm}")
        train(cfg, tmp_path / str(n))
        finals.append(rows(tmp_path / str(n))[-1])
    assert finals[0] == finals[1]


def test_a_run_folder_is_complete(six: dict[str, Path]) -> None:
    folder = six["hinge"]
    assert {"config.yaml", "metrics.jsonl", "status.json", "samples", "checkpoints"} <= {
        p.name for p in folder.iterdir()
    }
    status = json.loads((folder / "status.json").read_text())
    assert (status["status"], status["reason"], status["images"]) == ("finished", None, 128)
    recorded = rows(folder)
    assert status["score"] == recorded[-1]["fd_lenet"]
    assert [r["images"] for r in recorded if "d_loss" in r] == [32, 64, 96, 128]
    wanted = {"d_loss", "d_penalty", "g_loss", "d_real", "d_fake", "d_grad_norm", "g_grad_norm"}
    assert wanted <= set(recorded[1])
    assert "t_images_per_second" in json.loads((folder / "metrics.jsonl").read_text().splitlines()[1])
    assert {"fd_lenet", "fd_lenet_raw", "d_slope_real", "d_slope_fake"} <= set(recorded[-1])
    assert sorted(p.name for p in (folder / "samples").iterdir()) == ["000000000.png", "000000064.png", "000000128.png"]
    assert settings("loss=hinge", *TINY).protocol.images == 128
    assert "${" not in (folder / "config.yaml").read_text()


def test_a_checkpoint_holds_the_generator_that_was_scored(six: dict[str, Path]) -> None:
    folder = six["wgan-gp"]
    cfg = settings("loss=wgan-gp", *TINY)
    state = checkpoint.load(folder)
    assert (state["step"], state["images"]) == (4, 128)
    G = build(cfg.model.generator)
    G.load_state_dict(state["average"])
    drawn = sample(G, 64, cfg.model.z_dim, seed=0, device=torch.device("cpu"), stream="z_grid")
    kept = Image.open(folder / "samples/000000128.png")
    assert np.array_equal(np.array(sample_picture(drawn, datasets.mnist5k(), None)), np.array(kept))


def test_n_critic_counts_real_images(tmp_path: Path) -> None:
    train(settings("loss=wgan-gp", *TINY, "protocol.n_critic=2"), tmp_path)
    assert [r["images"] for r in rows(tmp_path) if "d_loss" in r] == [64, 128]


def test_divergence_is_a_result(tmp_path: Path) -> None:
    score = train(settings("loss=wgan", "penalty=none", *TINY, "protocol.images=6400", "optimizer.lr=1e30"), tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert score == float("inf")
    assert status["status"] == "diverged"
    assert re.fullmatch(
        r"[dg]_\w+ was (nan|-?inf) at generator update \d+, critic update \d+, \d+ real images", status["reason"]
    )
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_smoke_shrinks_the_other_compositions(tmp_path: Path) -> None:
    """Points with their own metrics, and a folder of color images with a penalty and bf16."""
    for name in ("ring", "grid"):
        train(settings(f"dataset={name}", "experiment=smoke", "wandb=disabled", "loss=wgan-lp"), tmp_path / name)
        last = rows(tmp_path / name)[-1]
        assert {"energy_distance", "modes", "high_quality"} <= set(last)
    for i in range(300):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    gray = ("dataset=folder", f"dataset.root={tmp_path}", "dataset.shape=[1,32,32]", "dataset.test_share=0.5")
    cfg = settings(
        *gray, "metric=fd_lenet", "experiment=smoke", "metric.n_fake=128", "precision=bf16", "wandb=disabled"
    )
    train(cfg, tmp_path / "folder")
    assert rows(tmp_path / "folder")[-1]["fd_lenet"] > 0


def test_the_last_line_says_why_there_is_no_score(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(settings(*TINY, "metric.n_fake=80"), tmp_path)
    (line,) = (text for text in caplog.messages if text.startswith("final scores"))
    assert "fd_lenet_inf none: 80 samples are fewer than 15 for each of 64 features (none: 80 samples" in line


def test_a_generator_that_breaks_last_is_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its samples would be stored as black images."""
    from ganbench.training import iteration as module

    def broken(players, *rest):
        terms = original(players, *rest)
        next(players.G.parameters()).data.fill_(float("nan"))
        return terms

    original = module.generator_update
    monkeypatch.setattr(module, "generator_update", broken)
    train(settings("loss=gan", *TINY, "protocol.images=32", "protocol.evaluations=1"), tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "diverged"
    assert status["reason"] == "generated samples are not finite at generator update 0, critic update 0, 32 real images"
    where = {"step": 0, "critic_step": 0, "images": 32}
    assert status["diverged"] == {"what": "samples", "value": "nan", "player": "generator"} | where
    assert (status["last_finite"]["images"], status["last_good"]) == (32, "samples/000000000.png")


def test_points_are_learnt(tmp_path: Path) -> None:
    train(settings("dataset=ring", "loss=wgan-lp", "protocol.images=128000", "wandb=disabled"), tmp_path)
    recorded = [r["energy_distance"] for r in rows(tmp_path) if "energy_distance" in r]
    assert recorded[-1] < 0.1 * recorded[0]
    assert json.loads((tmp_path / "status.json").read_text())["real_reference"]["modes"] == 8


def test_online_without_a_key_is_one_sentence(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "WANDB_API_KEY": "", "NETRC": str(tmp_path / "none")}
    refusal = ganbench("wandb=online", "experiment=smoke", "name=online", cwd=tmp_path, **home)
    assert refusal.returncode == 2
    assert "wandb=online: " in refusal.stderr and "wandb=offline" in refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert json.loads((tmp_path / "outputs/run/online/status.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_says_so(
    number: signal.Signals, code: int, start: Callable[..., subprocess.Popen], tmp_path: Path
) -> None:
    process = start("name=cut", "wandb=disabled", cwd=tmp_path)
    folder = tmp_path / "outputs/run/cut"
    metrics = folder / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    message = f"{number.name}: stopped; rerun the same command with name=cut to resume"
    assert message in (folder / "ganbench.log").read_text()
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "interrupted"
    assert process.returncode == code


def test_a_run_ends_with_its_folder_and_the_command_of_its_report(tmp_path: Path) -> None:
    done = ganbench(*RING, "protocol.images=160", "protocol.evaluations=1", "name=one two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert last.endswith("Folder: outputs/run/one two; report: python -m ganbench.report 'outputs/run/one two'")
    made = ganbench(
        *shlex.split(last.partition("python -m ganbench.report ")[2]), cwd=tmp_path, module="ganbench.report"
    )
    assert made.returncode == 0 and (tmp_path / "outputs/run/one two/report.html").exists(), made.stderr


def test_a_run_that_failed_ends_with_its_folder_only(tmp_path: Path) -> None:
    source = (
        "from ganbench.losses import GAN\n"
        "class Bad(GAN):\n"
        # fails only for a batch, and not where it is asked before the first step
        "    def d(self, real, fake): return super().d(real, fake) * (1 // (len(real) < 32))\n"
    )
    (tmp_path / "bad.py").write_text(source)
    done = ganbench(*RING, "loss._target_=bad.Bad", "name=bad", cwd=tmp_path)
    assert done.returncode == 1
    assert "Folder: outputs/run/bad\n" in done.stdout and "ganbench.report" not in done.stdout


def test_the_critics_judgement_is_recorded_at_each_evaluation(six: dict[str, Path]) -> None:
    for name, folder in six.items():
        recorded = [json.loads(line) for line in (folder / "histograms.jsonl").read_text().splitlines()]
        evaluated = [row for row in rows(folder) if "fd_lenet" in row]
        assert [row["images"] for row in recorded] == [row["images"] for row in evaluated]
        for row, scores in zip(recorded, evaluated, strict=True):
            for kind in ("real", "fake"):
                for what in ("logits", "gradient_norms"):
                    counts, edges = row[f"{what}_{kind}"].values()
                    assert sum(counts) == 256 and len(edges) == len(counts) + 1 == 33, name
                norms = row[f"gradient_norms_{kind}"]["edges"]
                assert norms[0] <= scores[f"d_slope_{kind}"] <= norms[-1]
