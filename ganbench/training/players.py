"""The two players, their average and optimisers, made as the configuration says."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from ganbench import randomness
from ganbench.config.compose import build
from ganbench.config.signature import accepts_argument
from ganbench.training.device import chosen_memory_format


class Critic(NamedTuple):
    D: nn.Module
    optimizer: torch.optim.Optimizer


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
    with randomness.seeded_initialization(cfg.seed, "init/G"):
        G = build(cfg.model.generator).to(device, memory_format=chosen_memory_format(cfg))
    D, opt_d = make_critic(cfg, device)
    average = copy.deepcopy(G).requires_grad_(False)
    opt_g, held = make_optimizer(cfg, cfg.optimizer.generator, G), torch.zeros((), device=device)
    for optimizer in (opt_g, opt_d):
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = held
    return Players(G, D, average, opt_g, opt_d)


def restore_players(players: Players, saved: Mapping[str, Any]) -> None:
    """Set all to what was saved of it. How optimisers compute is not part of that: another device has its own way."""
    for name, part in players._asdict().items():
        state = saved[name]
        for mine, theirs in zip(getattr(part, "param_groups", ()), state.get("param_groups", ()), strict=True):
            theirs |= {k: mine[k] for k in ("fused", "foreach", "capturable") if k in mine}
        part.load_state_dict(state)


def make_critic(cfg: DictConfig, device: torch.device) -> Critic:
    with randomness.seeded_initialization(cfg.seed, "init/D"):
        D = build(cfg.model.critic).to(device, memory_format=chosen_memory_format(cfg))
    return Critic(D, make_optimizer(cfg, cfg.optimizer.critic, D))


def copy_critic(cfg: DictConfig, D: nn.Module, opt_d: Optimizer) -> Critic:
    """A copy that can be trained on without the original noticing."""
    D = copy.deepcopy(D)
    optimizer = make_optimizer(cfg, cfg.optimizer.critic, D)
    optimizer.load_state_dict(copy.deepcopy(opt_d.state_dict()))
    return Critic(D, optimizer)


def make_optimizer(cfg: DictConfig, option: DictConfig, net: nn.Module) -> Optimizer:
    """What `option` names, in one kernel and fit for graphs where `speed` asks for that."""
    wanted = next(net.parameters()).is_cuda if cfg.speed.fused_optimizer is None else cfg.speed.fused_optimizer
    asked = {"fused": wanted, "capturable": cfg.speed.graphs}
    return build(
        option, params=net.parameters(), **{k: True for k, v in asked.items() if v and accepts_argument(option, k)}
    )
