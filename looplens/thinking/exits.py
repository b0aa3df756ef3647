"""Every way to leave the loop, by name.

Rules carry the names of Huginn's public code; ``gate`` is Ouro's. The rules themselves live in
:mod:`~looplens.thinking.settling` (leave when nothing changes) and
:mod:`~looplens.thinking.halting` (leave when a learned sum is full), the functions over gate logits
in :mod:`~looplens.thinking.gates`.
"""

from __future__ import annotations

from collections.abc import Callable

from looplens.errors import InputError, near_matches
from looplens.thinking.gates import (
    exit_distribution,
    exit_probability,
    expected_logits,
    logits_at,
    published_exit,
    survival,
    threshold_exit,
)
from looplens.thinking.halting import ActHalting, ActRouter, GateThreshold, act_exit
from looplens.thinking.rules import ExitMonitor, ExitRule, Observation
from looplens.thinking.settling import (
    Acceleration,
    ArgmaxStability,
    CosineDifference,
    EntropyChange,
    LatentDifference,
    MinPKL,
    OutputKL,
)

__all__ = [
    "EXIT_RULES",
    "Acceleration",
    "ActHalting",
    "ActRouter",
    "ArgmaxStability",
    "CosineDifference",
    "EntropyChange",
    "ExitMonitor",
    "ExitRule",
    "GateThreshold",
    "LatentDifference",
    "MinPKL",
    "Observation",
    "OutputKL",
    "act_exit",
    "exit_distribution",
    "exit_probability",
    "exit_rule",
    "expected_logits",
    "logits_at",
    "published_exit",
    "survival",
    "threshold_exit",
]

EXIT_RULES: dict[str, Callable[[float | None], ExitRule]] = {
    "latent-diff": lambda x: LatentDifference() if x is None else LatentDifference(threshold=x),
    "kl": lambda x: OutputKL() if x is None else OutputKL(threshold=x),
    "minp-kl": lambda x: MinPKL() if x is None else MinPKL(threshold=x),
    "entropy-diff": lambda x: EntropyChange() if x is None else EntropyChange(threshold=x),
    "acceleration": lambda x: Acceleration() if x is None else Acceleration(threshold=x),
    "cosine": lambda x: CosineDifference() if x is None else CosineDifference(threshold=x),
    "argmax-stability": lambda x: ArgmaxStability() if x is None else ArgmaxStability(steps=int(x)),
    "gate": lambda x: GateThreshold(q=1.0 if x is None else x),
}


def exit_rule(spec: str | ExitRule) -> ExitRule:
    """Read a rule's name, with its threshold behind a colon where it is not the default.

    Parameters
    ----------
    spec : str or ExitRule
        ``"kl"``, ``"kl:5e-4"``, ``"argmax-stability:3"``, ``"gate:0.7"``; a rule is handed back.

    Raises
    ------
    InputError
        If there is no such rule, or what follows the colon is no number it can use.

    Examples
    --------
    >>> exit_rule("kl:5e-4")
    OutputKL(threshold=0.0005)
    """
    if isinstance(spec, ExitRule):
        return spec
    if not isinstance(spec, str):
        raise InputError(f"expected an exit rule or its name, got {type(spec).__name__}")
    name, colon, number = spec.partition(":")
    if name not in EXIT_RULES:
        raise InputError(
            f"unknown exit rule {name!r}: expected one of {', '.join(EXIT_RULES)}."
            + near_matches(name, EXIT_RULES)
        )
    try:
        threshold = float(number) if colon else None
    except ValueError:
        raise InputError(f"expected a number behind ':' in exit rule {spec!r}") from None
    return EXIT_RULES[name](threshold)
