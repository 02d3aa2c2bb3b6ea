"""The protocol of a published score: which images it compares, and that the number carries it everywhere."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ganbench, report, settings
from PIL import Image
from torch_fidelity.metric_isc import isc_features_to_metric

from ganbench.config.validate import validate
from ganbench.datasets import Data
from ganbench.errors import Refused
from ganbench.host_samples import HostSamples
from ganbench.metrics import frechet
from ganbench.metrics.features import DinoV2, embed
from ganbench.metrics.images import ImageMetric
from ganbench.metrics.inception_score import inception_score
from ganbench.metrics.kid import kernel_distance
from ganbench.metrics.prdc import diversity, memorization
from ganbench.metrics.protocol import Protocol, Provenance
from ganbench.report.comparability import NotComparable, check_comparable
from ganbench.report.load import Run
from ganbench.report.study import load_study
from ganbench.runs.wandb_rows import summary
from ganbench.trained.evaluations import read_evaluations

CPU = torch.device("cpu")
PROVENANCE = Provenance("Net", "ab" * 32, "resize to 299x299", "library 1.2")
SENTENCE = (
    "fid50k: 50,000 samples against all 40,000 training images; Net (weights abababababab, library 1.2); "
    "uint8 images, resize to 299x299; KID, diversity and memorization of the first 10,000 of each"
)


class Pixels(torch.nn.Module):
    """Features as they are, and where they come from."""

    provenance = PROVENANCE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).double()


@pytest.fixture
def images(rng: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Training, held-out and generated images of six pixels each."""
    scale = torch.tensor([1.0, 0.8, 0.9])[:, None, None, None, None]
    return (torch.randint(0, 250, (3, 120, 1, 1, 6), generator=rng) * scale).to(torch.uint8).unbind()


def metric(train: torch.Tensor, test: torch.Tensor, **changed) -> ImageMetric:
    kwargs = {"n_real": None, "n_train": 50, "k_neighbors": 3, "n_subsets": 0} | changed
    return ImageMetric("fid", Pixels(), 60, data=Data(train, test), device=CPU, **kwargs)


def test_the_sentence_says_all_that_a_number_depends_on() -> None:
    """Two protocols that differ in anything have two sentences."""
    protocol = Protocol("fid50k", 50_000, 40_000, "train", 40_000, 10_000, PROVENANCE)
    assert protocol.sentence == SENTENCE
    others = {"metric": "fid", "n_fake": 10_000, "n_real": 30_000, "reference": "all", "n_available": 45_000}
    changed = [protocol._replace(**{name: value}) for name, value in (others | {"n_pairs": None}).items()]
    for field in Provenance._fields:
        changed.append(protocol._replace(provenance=PROVENANCE._replace(**{field: "cd" * 32})))
    assert len({each.sentence for each in (protocol, *changed)}) == 1 + len(changed)
    facts = json.loads(json.dumps(protocol.facts()))
    assert facts["sentence"] == SENTENCE and facts["weights"] == "ab" * 32 and facts["quantization"] == "uint8"


def test_the_metric_declares_what_it_does(images: tuple[torch.Tensor, ...]) -> None:
    train, test, _ = images
    assert metric(train, test[:80], reference="all", n_real=150).protocol == Protocol(
        "fid", 60, 150, "all", 200, None, PROVENANCE
    )
    held_out = metric(train, test[:80]).protocol
    assert held_out is not None and "against all 80 held-out images;" in held_out.sentence
    with pytest.raises(
        Refused, match=r"metric\.n_real=121 must be at most 120, the number of training images, or null"
    ):
        metric(train, test, reference="train", n_real=121)


def test_pairs_are_of_the_first_images_and_the_distance_is_of_all(images: tuple[torch.Tensor, ...]) -> None:
    train, test, fake = images
    scores = metric(train, test, reference="train", n_pairs=40)(fake)
    real, made, held_out = (x.flatten(1).double() for x in (train, fake, test))
    of_pairs = diversity(real[:40], made[:40], 3) | memorization(made[:40], real[:50], held_out[:40])
    assert {name: scores[name] for name in of_pairs} == pytest.approx(of_pairs)
    assert scores["kid"] == pytest.approx(kernel_distance(real[:40], made[:40]))
    assert scores["fid"] == pytest.approx(frechet.distance(frechet.moments(real), frechet.moments(made)))


def test_all_real_images_leave_none_as_reference(images: tuple[torch.Tensor, ...]) -> None:
    reference = metric(*images[:2], reference="all").real_reference
    assert reference["fid"] is None and reference["recall"] is None and reference["memorization"] > 0
    assert reference["fid_why"] == "samples are compared with all real images, so none is left"


@pytest.mark.parametrize("reference", ["held_out", "train", "all"])
def test_training_images_may_be_where_a_gpu_has_no_room(reference: str, images: tuple[torch.Tensor, ...]) -> None:
    train, test, fake = images
    host: Any = HostSamples(train, CPU)
    assert metric(host, test, reference=reference)(fake) == metric(train, test, reference=reference)(fake)


def test_moments_of_many_features_are_those_of_one_piece(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1003, 7, generator=rng) * torch.arange(1, 8) + 100
    whole = frechet.moments(x)
    monkeypatch.setattr(frechet, "AT_ONCE", 400)
    parts = frechet.moments(x)
    assert parts.n == whole.n and parts.mean.dtype == parts.cov.dtype == torch.float64
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.cov, whole.cov, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [95, 400])
def test_the_inception_score_agrees_with_torch_fidelity(n: int, rng: torch.Generator) -> None:
    logits = 3 * torch.randn(n, 50, generator=rng)
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)["inception_score_mean"]
    assert theirs > 3 and inception_score(logits)["inception_score"] == pytest.approx(theirs, rel=1e-9)
    few = inception_score(logits[:9])
    assert few["inception_score"] is None and "9 samples are fewer than the 10 parts" in few["inception_score_why"]


def run_with(name: str, protocol: str | None) -> Run:
    equal = {"dataset": "d"} | ({"metric_protocol": protocol} if protocol else {})
    return Run(Path(name), "finished", seed=0, footing={"equal": equal}, config={"loss": name})


def test_two_protocols_never_share_a_table() -> None:
    a, b, c = run_with("a", "fid: 10,000"), run_with("b", "fid: 50,000"), run_with("c", "fid: 50,000")
    for allowed in ((), ("metric_protocol",), ("n_fake",)):
        with pytest.raises(NotComparable) as refusal:
            check_comparable([a, b, c], allowed)
        sentence = str(refusal.value)
        assert "[fid: 10,000] in a and [fid: 50,000] in b and 1 more; rerun with the same metric=" in sentence
        assert "\n" not in sentence and "allow" not in sentence
    assert check_comparable([b, c, run_with("older", None)], ()) == []


REFUSED = {
    "protocol=tuned": "compares with images that are trained on, and protocol.scored_on=selection",
    "metric.reference=test": "must be held_out (papers: test), train, or all, which is both",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_a_reference_that_cannot_be(typed: str) -> None:
    selection = ["protocol.scored_on=selection"] if typed == "protocol=tuned" else [typed]
    with pytest.raises(Refused) as refusal:
        validate(settings("dataset=cifar10", "metric=fid50k", *selection))
    assert REFUSED[typed] in str(refusal.value)


SWEEPS = {
    "metric=fid,fid50k": "have scores of two protocols, metric=fid and metric=fid50k, which never share a table",
    "metric.reference=held_out,train": "two protocols, metric.reference=held_out and metric.reference=train, which",
    "metric=fid50k protocol=tuned": "metric.reference=train (metric=fid50k) compares with images that are trained on",
    "metric=fd_dinov2 seed=0,1": "metric=fd_dinov2 needs the file of DINOv2's weights and its SHA-256",
    "metric.features.weights={file} seed=0,1": "has SHA-256 {sha256}, expected 6726825d",
}


@pytest.mark.parametrize("typed", SWEEPS)
def test_a_sweep_that_would_mix_protocols_or_weights_is_refused_before_anything_is_written(
    typed: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"others")
    sha256 = hashlib.sha256(b"others").hexdigest()
    overrides = typed.format(file=file).split()
    refusal = ganbench("-m", "dataset=cifar10", "loss=gan,hinge", *overrides, "name=a", "wandb=disabled", cwd=tmp_path)
    assert refusal.returncode == 2 and "Traceback" not in refusal.stderr
    assert SWEEPS[typed].format(sha256=sha256) in " ".join(refusal.stderr.split())
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_number_carries_its_protocol(inception_weights: tuple[Path, str], tmp_path: Path) -> None:
    """Into footing, status, rows, W&B, tables and page, and into what is scored afterwards; all one sentence."""
    file, sha256 = inception_weights
    weights = [f"metric.features.weights={file}", f"metric.features.sha256={sha256}"]
    ours = [
        *weights,
        "metric=kid",
        "metric.reference=train",
        "metric.n_pairs=8",
        "device=cpu",
        "experiment=smoke",
        "wandb=disabled",
    ]
    made = ganbench("-m", "loss=gan", "seed=0", "name=a", *ours, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    (folder,) = (tmp_path / "outputs/sweep/a").glob("gan*")
    sentence = json.loads((folder / "footing.json").read_text())["equal"]["metric_protocol"]
    assert sentence == (
        "kid: 8 samples against the first 8 of 4,000 training images; Inception-v3 of 2015 "
        f"(weights {sha256[:12]}, torch-fidelity 0.4.0); uint8 images, bilinear resize of TensorFlow 1 to 299x299; "
        "KID, diversity and memorization of the first 8 of each"
    )
    assert json.loads((folder / "status.json").read_text())["metric_protocol"]["sentence"] == sentence
    assert summary(folder)["metric_protocol"] == sentence
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("metric_protocol") for row in rows if "kid" in row] == [sentence] * 3
    assert not any("metric_protocol" in row for row in rows if "kid" not in row)
    assert all(row["inception_score_why"].startswith("8 samples are fewer") for row in rows if "kid" in row)

    study = load_study(folder.parent)
    assert study.metric_protocol == sentence and study.real_reference is not None
    told = report(folder.parent)
    assert told.returncode == 0 and f"{sentence}. Real held-out data score " in told.stdout
    assert sentence in " ".join((folder.parent / "report.html").read_text().split())
    with (folder.parent / "results.csv").open() as stream:
        assert [row["metric_protocol"] for row in csv.DictReader(stream)] == [sentence]

    other = ["metric.n_fake=12", "metric.n_real=9", *weights]
    scored = ganbench(str(folder), "--metric", "kid", *other, cwd=tmp_path, module="ganbench.evaluate")
    assert scored.returncode == 0 and "kid: 12 samples against the first 9 of 1,000 held-out images;" in scored.stdout
    (evaluation,) = read_evaluations(folder)
    assert evaluation["metric_protocol"]["reference"] == "held_out" and evaluation["scores"]["inception_score"] >= 1

    mixed = ["loss=hinge", "seed=0,1", "name=a", *ours, "metric.reference=held_out"]
    refusal = ganbench("-m", *mixed, cwd=tmp_path)
    assert refusal.returncode == 2 and "would have scores of two protocols" in refusal.stderr


@pytest.mark.slow
def test_dinov2_is_the_class_token_of_pictures_scaled_as_pillow_does(tmp_path: Path, rng: torch.Generator) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    net = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0)  # for images of 518x518
    for weights in net.parameters():
        torch.nn.init.normal_(weights, std=0.05, generator=rng)
    file = tmp_path / "small.safetensors"
    save_file(net.state_dict(), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    features = DinoV2(str(file), sha256, "vit_small_patch14_dinov2")
    assert features.provenance.weights == sha256 and features.provenance.library == f"timm {timm.__version__}"
    x = torch.randint(0, 256, (2, 3, 32, 32), generator=rng, dtype=torch.uint8)
    scaled = [Image.fromarray(each.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC) for each in x]
    pixels = torch.from_numpy(np.stack([np.asarray(each) for each in scaled])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = features.net.forward_features((pixels - mean) / std)[:, 0]
    torch.testing.assert_close(embed(features, x).float(), expected, rtol=0, atol=1e-3)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    with pytest.raises(Refused, match="does not hold the weights of DinoV2"):
        DinoV2(str(file), sha256)
