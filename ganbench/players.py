"""The two players, their average and optimisers, made as the configuration says."""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from ganbench import streams
from ganbench.config import Precision, build
from ganbench.data import Data
from ganbench.probes import Critic
from ganbench.signature import takes


class Players(NamedTuple):
    """All that training changes."""

    G: nn.Module
    D: nn.Module
    average: nn.Module
    opt_g: Optimizer
    opt_d: Optimizer


def make_players(cfg: DictConfig, device: torch.device) -> Players:
    """Both nets, drawn from streams of their own, the average that starts as G, and an optimiser each.

    Of fused optimisers one holds back what the other had to.
    """
    with streams.initialising(cfg.seed, "init/G"):
        G = build(cfg.model.generator).to(device, memory_format=memory_format(cfg))
    D, opt_d = make_critic(cfg, device)
    average = copy.deepcopy(G).requires_grad_(False)
    opt_g, held = make_optimizer(cfg, cfg.optimizer.generator, G), torch.zeros((), device=device)
    for optimizer in (opt_g, opt_d):
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = held
    return Players(G, D, average, opt_g, opt_d)


def restore(players: Players, saved: Mapping[str, Any]) -> None:
    """Set all to what was saved of it. How optimisers compute is not part of that: another device has its own way."""
    for name, part in players._asdict().items():
        state = saved[name]
        for mine, theirs in zip(getattr(part, "param_groups", ()), state.get("param_groups", ()), strict=True):
            theirs |= {k: mine[k] for k in ("fused", "foreach", "capturable") if k in mine}
        part.load_state_dict(state)


def make_critic(cfg: DictConfig, device: torch.device) -> Critic:
    with streams.initialising(cfg.seed, "init/D"):
        D = build(cfg.model.critic).to(device, memory_format=memory_format(cfg))
    return Critic(D, make_optimizer(cfg, cfg.optimizer.critic, D))


def carried_on(cfg: DictConfig, D: nn.Module, opt_d: Optimizer) -> Critic:
    """A copy that can be trained on without the original noticing."""
    D = copy.deepcopy(D)
    optimizer = make_optimizer(cfg, cfg.optimizer.critic, D)
    optimizer.load_state_dict(copy.deepcopy(opt_d.state_dict()))
    return Critic(D, optimizer)


def make_optimizer(cfg: DictConfig, option: DictConfig, net: nn.Module) -> Optimizer:
    """What `option` names, in one kernel and fit for graphs where `speed` asks for that."""
    wanted = next(net.parameters()).is_cuda if cfg.speed.fused is None else cfg.speed.fused
    asked = {"fused": wanted, "capturable": cfg.speed.graphs}
    return build(option, params=net.parameters(), **{k: True for k, v in asked.items() if v and takes(option, k)})


def memory_format(cfg: DictConfig) -> torch.memory_format:
    return torch.channels_last if cfg.speed.channels_last else torch.preserve_format


def laid_out(data: Data, cfg: DictConfig) -> Data:
    """Training images as the players have theirs in memory."""
    return data._replace(train=data.train.to(memory_format=memory_format(cfg))) if data.train.dim() == 4 else data


def in_precision(precision: Precision, device: torch.device, penalty: Callable) -> tuple[Callable, Callable]:
    """What opens the context in which the players compute, and the penalty as it is computed beside them."""
    autocast = players_precision(precision, device)
    return autocast, InPrecision(penalty, autocast) if precision is Precision.bf16_all else penalty


def players_precision(precision: Precision, device: torch.device) -> Callable:
    """Opens the context in which the players compute; penalties stay outside of it, but for `InPrecision`."""
    return nullcontext if precision is Precision.fp32 else partial(torch.autocast, device.type, torch.bfloat16)


class InPrecision:
    """A penalty computed as the players are: D and its gradient inside `autocast`; norms and means are fp32."""

    def __init__(self, penalty: Callable, autocast: Callable):
        self.penalty, self.autocast = penalty, autocast
        if hasattr(penalty, "project"):
            self.project = penalty.project

    def __call__(self, D: Callable, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        with self.autocast():
            return self.penalty(D, real, fake, rng)
