"""Runs are used after training: samples, an export that loads elsewhere, and scores by other metrics."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, RING, TINY, ganbench
from PIL import Image

from ganbench.report.load import load_runs
from ganbench.runs import checkpoint
from ganbench.trained.evaluations import FILE, read_evaluations
from ganbench.trained.folder import open_run
from ganbench.trained.generator import load_generator
from ganbench.trained.samples import great_circle
from ganbench.training.run import load_data, load_metric

pytestmark = pytest.mark.slow

OWN_GENERATOR = """
import torch
from torch import nn
from layers_of_mine import wide

class Net(nn.Module):
    def __init__(self, shape, z_dim, sizes):
        super().__init__()
        self.body = nn.Sequential(*wide(z_dim, sizes), nn.Linear(sizes[-1], shape[0]))
        self.register_buffer("shift", torch.tensor(0.5))
    def forward(self, z):
        return self.body(z) - self.shift
"""
OWN_LAYERS = """
from torch import nn

def wide(z_dim, sizes):
    return [nn.Linear(z_dim, sizes[0]), nn.ReLU(), nn.Linear(sizes[0], sizes[1]), nn.BatchNorm1d(sizes[1])]
"""
OWN = (
    *(*RING, "protocol.images=640", "name=own", "model.generator._target_=own.Net", "model.z_dim=8"),
    *("~model.generator.width", "~model.generator.depth", "+model.generator.sizes=[16,12]"),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of images and a sweep of points, which no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    for arguments in ((*TINY, "name=digits"), ("-m", *RING, "protocol.images=640", "loss=gan,hinge", "name=rings")):
        done = ganbench(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def digits(here: Path, tmp_path: Path) -> Path:
    """A copy of the run of images, in the current folder of the test."""
    return shutil.copytree(here / "outputs/run/digits", tmp_path / "digits")


@pytest.fixture
def ring(here: Path, tmp_path: Path) -> Path:
    return shutil.copytree(here / "outputs/sweep/rings/gan-s0", tmp_path / "ring")


def command(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    return ganbench(*map(str, arguments), cwd=cwd, module=f"ganbench.{name}")


def sample(run: Path, *arguments: object) -> np.ndarray:
    """What `--out samples.npy` holds."""
    out = run.parent / "samples.npy"
    out.unlink(missing_ok=True)
    done = command("sample", run.name, *arguments, "--out", out.name, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return np.load(out)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def score(run: Path) -> float:
    return json.loads((run / "status.json").read_text())["score"]


def set_status(run: Path, **facts: object) -> None:
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | facts))


def save_changed(run: Path, change) -> None:
    """Replace the newest checkpoint by one whose state is changed."""
    state = checkpoint.load(run)
    change(state)
    newest = max((run / "checkpoints").glob("step-*.pt"))
    newest.unlink()
    checkpoint.save(run / "checkpoints", **{key: value for key, value in state.items() if key != "format"})


def test_the_first_samples_are_those_that_were_scored(digits: Path) -> None:
    """Of a run whose last evaluation has a chunk that is not full: 256 samples, 250 at once."""
    samples = sample(digits, "--n", 600)
    assert samples.shape == (600, 32, 32, 1) and samples.dtype == np.uint8
    cfg = open_run(digits).cfg
    device = torch.device("cpu")
    metric = load_metric(cfg, load_data(cfg, device), device)
    scored = torch.from_numpy(samples[: metric.n_fake]).permute(0, 3, 1, 2).contiguous()
    assert metric(scored)[metric.name] == score(digits)
    assert (sample(digits, "--n", 100) == samples[:100]).all()
    assert len(np.unique(samples, axis=0)) == 600


def test_the_same_samples_in_every_format(digits: Path) -> None:
    expected = sample(digits, "--n", 12)
    for out in ("pictures", "samples.npz"):
        assert command("sample", "digits", "--n", 12, "--out", out, cwd=digits.parent).returncode == 0
    pictures = sorted((digits.parent / "pictures").iterdir())
    assert [file.name for file in pictures] == [f"{i:05}.png" for i in range(12)]
    assert (np.stack([np.array(Image.open(file)) for file in pictures]) == expected[..., 0]).all()
    with np.load(digits.parent / "samples.npz") as npz:
        assert npz.files == ["arr_0"] and npz["arr_0"].shape == (12, 32, 32, 3)
        assert npz["arr_0"].dtype == np.uint8 and (npz["arr_0"] == expected).all()


def test_points_are_arrays(ring: Path) -> None:
    points = sample(ring, "--n", 300)
    assert points.shape == (300, 2) and points.dtype == np.float32
    assert command("sample", "ring", "--n", 300, "--out", "folder", cwd=ring.parent).returncode == 0
    assert (np.load(ring.parent / "folder/samples.npy") == points).all()


def test_a_grid_is_the_picture_of_the_run(digits: Path) -> None:
    assert command("sample", "digits", "--grid", "--out", "grid.png", cwd=digits.parent).returncode == 0
    assert (digits.parent / "grid.png").read_bytes() == max((digits / "samples").iterdir()).read_bytes()


def test_rows_of_an_interpolation_walk(digits: Path) -> None:
    assert command("sample", "digits", "--interpolate", "--out", "walks.png", cwd=digits.parent).returncode == 0
    picture = np.array(Image.open(digits.parent / "walks.png")).astype(float)
    assert picture.shape == (256, 256)
    tiles = picture.reshape(8, 32, 8, 32).transpose(0, 2, 1, 3)
    step = np.abs(np.diff(tiles, axis=1)).mean()
    assert 0 < step < np.abs(tiles[:, 0] - tiles[:, -1]).mean() / 2


def test_a_great_circle_turns_evenly_between_its_ends() -> None:
    a, b = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    walk = great_circle(a, b, 8)
    torch.testing.assert_close(walk[:, 0], a)
    torch.testing.assert_close(walk[:, -1], b)
    norms = walk.norm(dim=2)
    torch.testing.assert_close(norms.diff(dim=1), (b.norm(dim=1) - a.norm(dim=1))[:, None].expand(-1, 7) / 7)
    directions = walk / norms[..., None]
    cosines = (directions[:, 1:] * directions[:, :-1]).sum(2)
    torch.testing.assert_close(cosines, cosines[:, :1].expand(-1, 7))
    parallel = great_circle(a[:1], 2 * a[:1], 3)
    torch.testing.assert_close(parallel[0], torch.stack([a[0], 1.5 * a[0], 2 * a[0]]))


def test_seed_and_raw_are_other_samples(digits: Path) -> None:
    own = sample(digits, "--n", 4)
    assert (sample(digits, "--n", 4, "--seed", 0) == own).all()
    assert (sample(digits, "--n", 4, "--seed", 1) != own).any()
    raw = sample(digits, "--n", 4, "--raw")
    assert (raw != own).any()
    G = load_generator(open_run(digits), part="G").G
    expected = checkpoint.load(digits)["G"]
    assert all(torch.equal(value, expected[name]) for name, value in G.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("sample", "rings", "--n", 4, "--out", "x"),
            ("rings is the folder of several", "rings/gan-s0, rings/hinge-s0"),
        ),
        (("export", "rings"), ("rings is the folder of several", "rings/gan-s0, rings/hinge-s0")),
        (("sample", "lost", "--n", 4, "--out", "x"), ("lost is not a folder",)),
        (("sample", "empty", "--n", 4, "--out", "x"), ("empty is not the folder of a run",)),
        (("export", "digits/status.json"), ("digits/status.json is not a folder",)),
        (("evaluate", "digits", "empty", "--metric", "kid"), ("empty is not the folder of a run",)),
        (("evaluate", "metric.n_fake=9", "--metric", "kid"), ("No run is named",)),
        (("sample", "digits", "--n", 0, "--out", "x"), ("--n: 0 must be a whole number of at least 1",)),
        (("sample", "digits", "--n", "many", "--out", "x"), ("--n: many must be a whole number",)),
        (("sample", "digits", "--out", "x"), ("--n --grid --interpolate is required",)),
        (("sample", "digits", "--n", 4, "--grid", "--out", "x"), ("--grid: not allowed with argument --n",)),
        (("sample", "digits", "--n", 4, "--out", "rings"), ("--out rings already exists",)),
        (("sample", "digits", "--n", 4, "--out", "digits/status.json/x"), ("cannot be written there",)),
        (("export", "digits", "--out", "rings"), ("--out rings already exists",)),
        (("export", "digits", "--out", "G.safetensors"), ("--out G.safetensors must be a folder, into which",)),
        (("sample", "digits", "--n", 4, "--out", "x.zip"), ("--out x.zip must be a folder", ".npz")),
        (("sample", "digits", "--grid", "--out", "x"), ("--out x must end in .png",)),
        (("sample", "rings/gan-s0", "--grid", "--out", "x.png"), ("--grid draws images", "dataset=ring")),
        (("sample", "digits", "--n", 4, "--out", "x", "--device", "gpu0"), ("--device gpu0 must be one of",)),
        (("sample", "digits", "--n", 4, "--out", "x", "--device", "cuda:99"), ("--device cuda:99", "--device c")),
        (("evaluate", "digits", "protocol.ema=0.5", "--metric", "kid"), ("protocol.ema=0.5 is neither a folder",)),
        (("evaluate", "digits", "--metric", "fdi"), ("--metric fdi is not an option", "fid")),
        (("evaluate", "digits", "--metric", "energy_distance"), ("--metric energy_distance needs 2-D", "--metric kid")),
        (("evaluate", "digits", "--metric", "kid", "metric.n_fake=1"), ("metric.n_fake=1 must be a whole number",)),
        (("evaluate", "digits", "metric.n=9", "--metric", "kid"), ("metric.n: unknown setting",)),
        (("evaluate", "digits", "--metric", "fid", "metric.features.weights=w"), ("weights=w does not exist",)),
        (("evaluate", "digits", "--metric", "kid", "--config-dir", "x"), ("--config-dir x is not a folder",)),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_refused_in_one_sentence_and_nothing_written(arguments: tuple, words: tuple, here: Path, digits: Path) -> None:
    place = digits.parent
    shutil.copytree(here / "outputs/sweep/rings", place / "rings")
    (place / "empty").mkdir()
    before = files(place)
    done = command(*arguments, cwd=place)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert files(place) == before and not (place / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("sample", "--help"), 0),
        (("export", "--help"), 0),
        (("evaluate", "--help"), 0),
        (("sample", "outputs/sweep/rings", "--n", "9", "--out", "x"), 2),
        (("sample", "outputs/run/digits", "--grid", "--out", "x"), 2),
        (("export", "outputs/run/digits", "--out", "outputs"), 2),
        (("evaluate", "outputs/run/digits", "--metric", "energy_distance"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_refusals_and_help_do_without_torch(arguments: tuple, code: int, here: Path) -> None:
    name, *others = arguments
    script = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_module('ganbench.{name}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script, *others],
        cwd=here,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_a_run_that_did_not_finish_is_used_and_told(digits: Path) -> None:
    set_status(digits, status="diverged")
    done = command("sample", "digits", "--n", 4, "--out", "x", cwd=digits.parent)
    assert done.returncode == 0 and "digits has not finished (status: diverged)" in done.stderr
    assert len(list((digits.parent / "x").iterdir())) == 4


def test_a_run_without_a_checkpoint(digits: Path) -> None:
    shutil.rmtree(digits / "checkpoints")
    done = command("export", "digits", cwd=digits.parent)
    assert done.returncode == 2 and "digits has no checkpoint" in done.stderr
    assert not (digits / "export").exists()


def test_a_damaged_checkpoint_is_refused_rather_than_replaced_by_an_older_one(digits: Path) -> None:
    newest = max((digits / "checkpoints").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    before = files(digits.parent)
    for name, *options in (("sample", "--n", 4, "--out", "x"), ("export",), ("evaluate", "--metric", "kid")):
        done = command(name, "digits", *options, cwd=digits.parent)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert newest.name in done.stderr and "is damaged" in done.stderr and "remove it" in done.stderr
        assert files(digits.parent) == before
    newest.unlink()
    assert sample(digits, "--n", 4).shape == (4, 32, 32, 1)


def test_settings_that_cannot_be_read(digits: Path) -> None:
    (digits / "config.yaml").write_text("seed: [")
    done = command("sample", "digits", "--n", 4, "--out", "x", cwd=digits.parent)
    assert done.returncode == 2 and "digits/config.yaml cannot be read" in done.stderr and done.stderr.count("\n") == 1


def test_samples_that_are_not_finite_are_not_written(digits: Path) -> None:
    save_changed(digits, lambda state: state["average"]["stem.0.bias"].fill_(float("nan")))
    before = files(digits.parent)
    done = command("sample", "digits", "--n", 4, "--out", "x", cwd=digits.parent)
    assert done.returncode == 3 and "not finite" in done.stderr and done.stderr.count("\n") == 1
    assert files(digits.parent) == before and not list(digits.parent.glob(".ganbench*"))


def loaded_elsewhere(export: Path, z_dim: int, path: str) -> np.ndarray:
    """Load an export where neither Hydra nor W&B can be imported; return the samples of a fixed z."""
    readme = (export / "README.md").read_text()
    lines = readme.partition("```python\n")[2].partition("```")[0]
    assert len(lines.splitlines()) == 3
    script = (
        "import sys\nfor name in ('hydra', 'omegaconf', 'wandb'): sys.modules[name] = None\n"
        f"{lines}import numpy\ntorch.set_num_threads(1)\nassert samples.shape[0] == 16\n"
        f"G = load()\nassert not G.training\nnumpy.save('out.npy', G(torch.linspace(-1, 1, 3 * {z_dim}).view(3, -1)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=export, env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(export / "out.npy")


def in_this_process(run: Path, z_dim: int) -> np.ndarray:
    G = load_generator(open_run(run)).G
    return G(torch.linspace(-1, 1, 3 * z_dim).view(3, -1)).numpy()


def test_an_export_loads_without_hydra(digits: Path) -> None:
    done = command("export", "digits", "--out", "export", cwd=digits.parent)
    assert done.returncode == 0, done.stderr
    elsewhere = loaded_elsewhere(digits.parent / "export", 64, str(REPOSITORY))
    assert (elsewhere == in_this_process(digits, 64)).all()


def test_an_export_of_channels_last_differs_by_rounding_only(tmp_path: Path) -> None:
    done = ganbench(*TINY, "speed=channels_last", "name=last", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "outputs/run/last"
    assert command("export", run, "--out", "export", cwd=tmp_path).returncode == 0
    elsewhere = loaded_elsewhere(tmp_path / "export", 64, str(REPOSITORY))
    np.testing.assert_allclose(elsewhere, in_this_process(run, 64), atol=1e-5)


def test_a_generator_that_its_arguments_and_weights_do_not_determine_is_not_exported(tmp_path: Path) -> None:
    own = OWN_GENERATOR.replace('self.register_buffer("shift", torch.tensor(0.5))', "self.shift = torch.rand(())")
    (tmp_path / "own.py").write_text(own)
    (tmp_path / "layers_of_mine.py").write_text(OWN_LAYERS)
    assert ganbench(*OWN, cwd=tmp_path).returncode == 0
    done = command("export", "outputs/run/own", "--out", "export", cwd=tmp_path)
    assert done.returncode == 2 and "other samples" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "export").exists() and not list(tmp_path.glob(".ganbench*"))


def test_a_model_card_has_the_score_and_where_it_comes_from(digits: Path) -> None:
    assert command("evaluate", "digits", "--metric", "fd_lenet", "metric.n_fake=100", cwd=digits.parent).returncode == 0
    assert command("export", "digits", cwd=digits.parent).returncode == 0
    card = (digits / "export/README.md").read_text()
    (run,) = load_runs(digits)
    (other,) = read_evaluations(digits)
    assert f"fd_lenet {score(digits):.4g} " in card and f"fd_lenet {other['score']:.4g} " in card
    assert all(str(run.facts[key]) in card for key in ("commit", "torch", "ganbench"))
    assert run.footing["equal"]["train_data"] in card and "MIT" in card


def test_a_card_gives_no_score_to_weights_that_were_not_scored(digits: Path) -> None:
    save_changed(digits, lambda state: state.update(images=96))
    assert command("export", "digits", cwd=digits.parent).returncode == 0
    assert f"{score(digits):.4g}" not in (digits / "export/README.md").read_text()


def test_a_generator_of_ones_own_is_exported_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_GENERATOR)
    (tmp_path / "layers_of_mine.py").write_text(OWN_LAYERS)
    trained = ganbench(*OWN, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "outputs/run/own"
    assert command("sample", run, "--n", 9, "--out", "points.npy", cwd=tmp_path).returncode == 0
    assert command("export", run, "--out", "export", cwd=tmp_path).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    refused = command("sample", run, "--n", 9, "--out", "x", cwd=elsewhere)
    assert refused.returncode == 2 and "own.Net, which cannot be found" in refused.stderr
    shutil.move(tmp_path / "export", elsewhere / "export")
    samples = loaded_elsewhere(elsewhere / "export", 8, "")
    assert samples.shape == (3, 2) and np.isfinite(samples).all()
    one_at_a_time = """
import numpy, torch
from load_generator import load
z = torch.linspace(-1, 1, 24).view(3, -1)
numpy.save('one.npy', torch.cat([load()(row[None]) for row in z]))
"""
    subprocess.run([sys.executable, "-c", one_at_a_time], cwd=elsewhere / "export", check=True)
    np.testing.assert_allclose(np.load(elsewhere / "export/one.npy"), samples, atol=1e-6)


def test_another_metric_is_recorded_once_beside_the_records(digits: Path) -> None:
    before = files(digits)
    for options in ([], [], ["metric.n_fake=100"], ["metric.n_fake=100", "--force"]):
        done = command("evaluate", "digits", "--metric", "fd_lenet", *options, cwd=digits.parent)
        assert done.returncode == 0, done.stderr
    after = files(digits)
    after.pop(FILE)
    assert after == before
    evaluations = read_evaluations(digits)
    assert [each["settings"]["n_fake"] for each in evaluations] == [2000, 100, 100]
    assert evaluations[1]["score"] == evaluations[2]["score"] != evaluations[0]["score"]
    newest = max((digits / "checkpoints").iterdir())
    assert all(each["checkpoint"] == newest.name and each["images"] == 128 for each in evaluations)


def test_the_runs_own_metric_gives_its_own_score(here: Path, tmp_path: Path) -> None:
    sweep = shutil.copytree(here / "outputs/sweep/rings", tmp_path / "rings")
    options = ("--metric", "energy_distance", "metric.n_fake=256", "metric.n_real=256")
    done = command("evaluate", "rings", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted(path for path in sweep.iterdir() if path.is_dir() and (path / "status.json").exists())
    assert [read_evaluations(run)[0]["score"] for run in runs] == [score(run) for run in runs]
    assert len(runs) == 2 and done.stdout.count("\n") == 2


def test_half_a_line_is_no_evaluation(ring: Path) -> None:
    (ring / FILE).write_text('{"metric": "energy_distance", "sco')
    options = ("--metric", "energy_distance", "metric.n_fake=100", "metric.n_real=100")
    assert command("evaluate", "ring", *options, cwd=ring.parent).returncode == 0
    (evaluation,) = read_evaluations(ring)
    assert evaluation["n_fake"] == 100


def test_other_data_than_those_of_the_run_are_refused(ring: Path) -> None:
    footing = json.loads((ring / "footing.json").read_text())
    footing["equal"]["held_out_data"] = "0123456789ab"
    (ring / "footing.json").write_text(json.dumps(footing))
    done = command("evaluate", "ring", "--metric", "energy_distance", cwd=ring.parent)
    assert done.returncode == 2 and "0123456789ab" in done.stderr and not (ring / FILE).exists()


def test_a_metric_of_ones_own(ring: Path) -> None:
    shutil.copytree(REPOSITORY / "tests/examples/metric", ring.parent, dirs_exist_ok=True)
    done = command("evaluate", "ring", "--metric", "sliced", "--config-dir", "options", cwd=ring.parent)
    assert done.returncode == 0, done.stderr
    assert read_evaluations(ring)[0]["score"] > 0
