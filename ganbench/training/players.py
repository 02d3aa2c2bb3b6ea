"""Build the players from the configuration: both nets, the averaged generator, and an optimizer each."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from ganbench import randomness
from ganbench.config.compose import build
from ganbench.config.signature import accepts_argument
from ganbench.models.initialization import initialize
from ganbench.training.device import chosen_memory_format
from ganbench.training.preflight import check_weights

# How an optimizer computes, not what: each device has its own way, so a checkpoint does not decide it.
IMPLEMENTATION = ("fused", "foreach", "capturable")


class Players(NamedTuple):
    """All that training changes. `average` is the generator that is scored."""

    G: nn.Module
    D: nn.Module
    average: nn.Module
    opt_g: Optimizer
    opt_d: Optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the state_dict of each part, as checkpoints hold it."""
        return {name: part.state_dict() for name, part in self._asdict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state_dict of each part."""
        for name, part in self._asdict().items():
            if isinstance(part, Optimizer):
                _keep_implementation(part, state[name])
            part.load_state_dict(state[name])


def make_players(cfg: DictConfig, device: torch.device) -> Players:
    """Build both nets, with initial weights from streams of their own, the average (at first G) and the optimizers."""
    G = make_generator(cfg, device)
    opt_g = make_optimizer(cfg, cfg.optimizer.generator, G)
    D, opt_d = _make_critic(cfg, device)
    players = Players(G, D, copy.deepcopy(G).requires_grad_(False), opt_g, opt_d)
    _share_found_inf([opt_g, opt_d], device)
    return players


def make_generator(cfg: DictConfig, device: torch.device) -> nn.Module:
    """Build the generator, with initial weights from a stream of its own."""
    return draw_net(cfg, "generator", "init/G", device)


def draw_net(cfg: DictConfig, player: Literal["generator", "critic"], stream: str, device: torch.device) -> nn.Module:
    """Build a player's net, with the initial weights that `model.init` asks for, from this stream."""
    with randomness.seeded_initialization(cfg.seed, stream):
        net = build(cfg.model[player])
        check_weights(net, player)
        initialize(net, chosen_init(cfg))
    return net.to(device, memory_format=chosen_memory_format(cfg))


def chosen_init(cfg: DictConfig) -> str:
    """Return `model.init`; a net without that setting keeps the weights that it draws itself."""
    return cfg.model.get("init", "torch")


def with_fresh_critic(cfg: DictConfig, players: Players, device: torch.device) -> Players:
    """Return the players with the critic as it was before training."""
    D, opt_d = _make_critic(cfg, device)
    _share_found_inf([opt_d], device)
    return players._replace(D=D, opt_d=opt_d)


def with_copied_critic(cfg: DictConfig, players: Players) -> Players:
    """Return the players with a copy of the critic, to be trained without a change to the original."""
    D = copy.deepcopy(players.D)
    opt_d = make_optimizer(cfg, cfg.optimizer.critic, D)
    opt_d.load_state_dict(copy.deepcopy(players.opt_d.state_dict()))
    _share_found_inf([opt_d], next(D.parameters()).device)
    return players._replace(D=D, opt_d=opt_d)


def make_optimizer(cfg: DictConfig, option: DictConfig, net: nn.Module) -> Optimizer:
    """Build the optimizer that `option` names, fused and fit for CUDA graphs where `speed` asks for it."""
    fused = cfg.speed.fused_optimizer
    wanted = {
        "fused": next(net.parameters()).is_cuda if fused is None else fused,
        "capturable": cfg.speed.graphs,
    }
    flags = {name: True for name, is_wanted in wanted.items() if is_wanted and accepts_argument(option, name)}
    return build(option, params=net.parameters(), **flags)


def _make_critic(cfg: DictConfig, device: torch.device) -> tuple[nn.Module, Optimizer]:
    D = draw_net(cfg, "critic", "init/D", device)
    return D, make_optimizer(cfg, cfg.optimizer.critic, D)


def _share_found_inf(optimizers: list[Optimizer], device: torch.device) -> None:
    """Have fused optimizers skip every update after a bad one, whoever's it was: on the device, without a wait."""
    found_inf = torch.zeros((), device=device)
    for optimizer in optimizers:
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = found_inf  # type: ignore[attr-defined]  # as torch's own GradScaler sets it


def _keep_implementation(optimizer: Optimizer, state: dict[str, Any]) -> None:
    for ours, theirs in zip(optimizer.param_groups, state["param_groups"], strict=True):
        theirs |= {name: ours[name] for name in IMPLEMENTATION if name in ours}
