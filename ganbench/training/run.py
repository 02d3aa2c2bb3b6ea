"""One run in memory: what it is made of, and what it does at each step of its schedule."""

import logging
import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from PIL.Image import Image
from torch import Tensor, nn

from ganbench import randomness
from ganbench.config.compose import build, is_augmented
from ganbench.datasets import Data, select_evaluation_split, to_float
from ganbench.errors import plural
from ganbench.image_folder import describe_left_out
from ganbench.interfaces import Augment, Metric, Scores
from ganbench.metrics.protocol import Protocol
from ganbench.progress import duration, progress_bar
from ganbench.runs.recorder import Recorder
from ganbench.runs.signals import GracefulStop
from ganbench.training.batches import Batches
from ganbench.training.device import autocast_and_penalty, to_memory_format
from ganbench.training.evaluate import (
    Judgement,
    evaluate,
    evaluate_raw,
    final_line,
    format_score,
    histogram,
    judge,
    progress_line,
    sample,
)
from ganbench.training.footing import check_footing_at_end, footing
from ganbench.training.iteration import Iteration, make_iteration
from ganbench.training.meter import Meter
from ganbench.training.pictures import picture_size, sample_picture
from ganbench.training.players import make_players, with_copied_critic, with_fresh_critic
from ganbench.training.preflight import (
    check_augment,
    check_critic,
    check_data,
    check_generator,
    check_loss,
    check_metric,
    check_penalty,
    check_rankable,
)
from ganbench.training.rates import LearningRates
from ganbench.training.schedule import make_schedule
from ganbench.training.updates import Objective

log = logging.getLogger("ganbench")


class Run:
    """A run's data, players and objective. Raise Refused for parts that make no fair comparison."""

    def __init__(self, cfg: DictConfig, device: torch.device, recorder: Recorder, stop: GracefulStop):
        self.cfg = cfg
        self.device = device
        self.recorder = recorder
        self.stop = stop
        with stop.at_once():
            self._load()
        self.vanishing = build(cfg.probe, name=cfg.loss.name)
        self.schedule = make_schedule(cfg, self.vanishing.moments, recorder.earlier_budgets)
        self.batches = Batches(cfg, self.data.train)
        self.rates = LearningRates(cfg, self.players, self.schedule)
        self.footing = footing(cfg, self.data, self.metric, self.players)
        recorder.write_footing(self.footing)
        self._announce()
        self.meter = Meter(device)
        self.bar = progress_bar(cfg.protocol.images)
        self.losses: dict[str, float] = {}
        self.scores: Scores = {}

    def _load(self) -> None:
        """Load the data, build what is trained on them, and check it."""
        cfg, device = self.cfg, self.device
        self.data = load_data(cfg, device)
        self.metric = load_metric(cfg, self.data, device)
        self.protocol: Protocol | None = getattr(self.metric, "protocol", None)
        self._seed_globals("own_start", 0)
        self.players = make_players(cfg, device)
        check_generator(self.players.G, cfg.model.z_dim, to_float(self.data.train[:256]))
        self.objective = make_objective(cfg, device, self.players.D, self.data)

    def start(self) -> int:
        """Restore the last checkpoint, if there is one; return the step to go on with."""
        first = self.recorder.restore(self.players, self.meter)
        self.rates.set(self.players, first)  # before an iteration is recorded
        self.iteration: Iteration = make_iteration(
            self.cfg, self.players, self.objective, lambda ahead: self.batches(first + ahead)
        )
        return first

    def save(self, step: int) -> None:
        """Save the state before this step is logged; a resumed run logs the step again."""
        self.meter.raise_if_not_finite()
        with self.meter.paused():
            self.recorder.save(step, self.schedule.images(step), self.players, self.meter)

    def log(self, step: int) -> None:
        """Record the mean losses since the last log line."""
        images = self.schedule.images(step)
        self.losses = self.meter.read(images)
        if self.losses:
            self.losses |= self.rates.terms(step)
        self.bar.update(images - self.bar.n)
        self.recorder.log(images, self.losses)

    def evaluate(self, step: int) -> None:
        """Score the averaged generator and record scores and samples; at the end also the generator itself."""
        images = self.schedule.images(step)
        with self.meter.paused():
            began = time.perf_counter()
            with self.stop.at_once():
                critic, self.scores, picture = self._evaluate(step)
            if step == 0:
                self._announce_evaluations(time.perf_counter() - began)
            self.recorder.log(images, self.scores | self._protocol_of_scores())
            self.recorder.note_collapse()
            self.recorder.log_samples(images, picture)
            self.recorder.log_histograms(images, _histograms(critic))
            score = self.scores[self.metric.name]
            self.recorder.note(score=score, images=images, t_train=self.meter.training_seconds)
            total = self.cfg.protocol.images
            log.info(progress_line(images, total, self.metric.name, self.scores, self.losses))

    def _evaluate(self, step: int) -> tuple[dict[str, Judgement], Scores, Image]:
        """Have the critic judge, score the averaged generator (at the end also the other one), and draw samples."""
        self._seed_globals("own_evaluation", step)
        sampler = partial(sample, z_dim=self.cfg.model.z_dim, seed=self.cfg.seed, device=self.device)
        fake = sampler(self.players.average, n=self.metric.n_fake)
        critic = {"real": judge(self.players.D, self.data.train), "fake": judge(self.players.D, fake)}
        scores = evaluate(self.metric, fake, critic, self.data)
        if step == self.schedule.steps:
            scores |= evaluate_raw(self.metric, sampler, self.players.G)
        shown = sampler(self.players.average, n=picture_size(self.data), stream="z_grid")
        return critic, scores, sample_picture(shown, self.data, self.players.D)

    def _protocol_of_scores(self) -> Scores:
        """Return what a row of scores says of how they were taken."""
        return {"metric_protocol": self.protocol.sentence} if self.protocol else {}

    def probe(self, step: int) -> None:
        """Measure, on copies, whether the generator's gradient vanishes as the critic gets better."""
        self.meter.raise_if_not_finite()
        with self.meter.paused():
            self._seed_globals("own_probe", step)
            critics = {
                "onward": with_copied_critic(self.cfg, self.players),
                "scratch": with_fresh_critic(self.cfg, self.players, self.device),
            }
            for players in critics.values():
                self.rates.set(players, step)
            rows = self.vanishing(critics, self.objective, self.data, self.schedule.critic_step(step))
            self.recorder.log_probe(self.schedule.images(step), self.stop.each_at_once(rows))

    def update(self, step: int) -> None:
        """Run one iteration: updates of the critic, then one of the generator."""
        batch = self.batches(step)
        self.recorder.now = batch.when[-1]
        self.rates.set(self.players, step)
        for terms, when in zip(self.iteration(batch), batch.when, strict=True):
            self.meter.add(terms, when)

    def finish(self) -> float:
        """Check that the footing is still what it was, say the final scores, and return the one that ranks."""
        self.recorder.note(t_other=self.meter.other_seconds)
        check_footing_at_end(self.footing, footing(self.cfg, self.data, self.metric, self.players))
        log.info(final_line(self.scores, self.metric.real_reference))
        score = self.scores[self.metric.name]
        assert not isinstance(score, str | list)  # reasons and shares have names of their own
        return math.inf if score is None else score

    def _seed_globals(self, stream: str, step: int) -> None:
        """Start the generators that a user's own components may draw from, so that they draw the same at each start."""
        randomness.seed_globals(randomness.key(self.cfg.seed, stream, step), self.device)

    def _announce_evaluations(self, seconds: float) -> None:
        """Say how long all evaluations will take, where that is a minute or more."""
        more = len(self.schedule.evaluations) - 1
        if more * seconds >= 60:
            log.info(
                f"an evaluation takes {duration(seconds)}, and {more} more will follow: {duration(more * seconds)} of "
                "this run; protocol.evaluations=... sets their number"
            )

    def _announce(self) -> None:
        """Say and record what was chosen, and what real data score."""
        name = self.metric.name
        reference = self.metric.real_reference
        device = _device_name(self.cfg, self.device)
        weights = {"G": count_weights(self.players.G), "D": count_weights(self.players.D)}
        precision = self.cfg.precision.value
        self.recorder.note(device=device, precision=precision, weights=weights, real_reference=reference)
        if self.protocol:
            self.recorder.note(metric_protocol=self.protocol.facts())
            log.info(self.protocol.sentence)
        if self.data.facts:
            self.recorder.note(data=dict(self.data.facts))
            log.info(_images_line(self.data.facts))
        log.info(
            f"{device}, {precision}; {self.cfg.dataset.name}; {self.cfg.model.name}, "
            f"weights: generator {weights['G']:,}, critic {weights['D']:,}; "
            f"{plural(self.schedule.steps, 'generator update')}; "
            f"real-data reference: {name} {format_score(reference[name])}"
        )


def load_data(cfg: DictConfig, device: torch.device) -> Data:
    """Load the dataset to the device, split for the evaluation that the protocol asks for."""
    randomness.seed_globals(randomness.key(0, "own_dataset"), device)  # the same data for all seeds
    data = build(cfg.dataset)
    check_data(data, cfg.dataset.name, cfg.dataset.shape)
    data = select_evaluation_split(data, cfg.protocol.scored_on.value)._replace(mirrored=cfg.protocol.flip_reals)
    return to_memory_format(data.to(device), cfg)


def load_metric(cfg: DictConfig, data: Data, device: torch.device) -> Metric:
    """Build the metric, with the features of real data. Raise Refused for one that can rank nothing here."""
    randomness.seed_globals(randomness.key(0, "own_metric"), device)
    metric: Metric = build(cfg.metric, name=cfg.metric.name, data=data, device=device)
    if not cfg.get("_smoke_"):  # whose few samples have no score at all
        check_rankable(metric, cfg.metric.name)
    check_metric(metric, cfg.metric.name)
    return metric


def make_objective(cfg: DictConfig, device: torch.device, D: nn.Module, data: Data) -> Objective:
    """Build loss and penalty and refuse what is no fair game for this critic."""
    loss = build(cfg.loss)
    penalty = build(cfg.penalty)
    check_critic(D, to_float(data.train[:4]))
    check_loss(loss, cfg.loss.name)
    check_penalty(penalty, cfg.penalty.name, D, *to_float(data.train[:8]).chunk(2))
    autocast, penalty = autocast_and_penalty(cfg.precision, device, penalty)
    return Objective(loss, penalty, autocast, make_augment(cfg, to_float(data.train[:8])))


def make_augment(cfg: DictConfig, x: Tensor) -> Augment | None:
    """Build the augmentation, if there is one, and refuse one that does not fit samples such as x."""
    if not is_augmented(cfg):
        return None
    augment = build(cfg.augment)
    check_augment(augment, cfg.augment.name, x)
    return augment


def count_weights(net: nn.Module) -> int:
    """Return the number of trained numbers in a net."""
    return sum(w.numel() for w in net.parameters())


def _histograms(critic: dict[str, Judgement]) -> dict[str, Any]:
    """Return histograms of the critic's logits and gradient norms, by what it judged; None for what is not finite."""
    found = {}
    for kind, judged in critic.items():
        found[f"logits_{kind}"] = histogram(judged.logits)
        found[f"gradient_norms_{kind}"] = histogram(judged.gradient_norms)
    return found


def _images_line(facts: Mapping[str, Any]) -> str:
    """Say what was found in a folder of images."""
    total = facts["train"] + facts["held_out"]
    parts = [f"{total:,} images: {facts['train']:,} to train on, {facts['held_out']:,} held out"]
    if facts["copies"]:
        parts.append(f"copies of training images among those held out: {facts['copies']:,}")
    if facts["left_out"]:
        parts.append(describe_left_out(facts["left_out"]))
    return "; ".join(parts)


def _device_name(cfg: DictConfig, device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {cfg.threads} thread{'s' * (cfg.threads != 1)}"
