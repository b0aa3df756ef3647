"""Token-by-token generation from a cache, which records every state on the way.

Every token thinks for some iterations and is read out; an exit rule may end the thinking. Without
a rule and with a full cache the result equals the full forward over the finished text, position by
position, noise included. How entries are kept is :mod:`~looplens.thinking.cache`'s affair, when to
stop that of the exit rules.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.errors import InputError
from looplens.models import InitialState, LoopedTransformer
from looplens.models.inputs import check_tokens
from looplens.thinking.cache import CacheStrategy, LoopedCache, caching
from looplens.thinking.exits import exit_rule as parse_exit_rule
from looplens.thinking.generation import Generation
from looplens.thinking.rules import ExitRule, Observation
from looplens.thinking.starts import Starts


@torch.no_grad()
def generate(
    model: LoopedTransformer,
    prompt: str | Sequence[int] | Int[Tensor, " pos"],
    *,
    max_new_tokens: int,
    iterations: int | None = None,
    exit_rule: ExitRule | str | None = None,
    initial_state: str | int | InitialState | Tensor | None = None,
    continuous_start: bool = False,
    kv: str | CacheStrategy = "full",
    temperature: float = 0.0,
    seed: int = 0,
    stop_tokens: Collection[int] = (),
    record: bool = True,
) -> Generation:
    """Generate text, token by token.

    Parameters
    ----------
    model : LoopedTransformer
        The model.
    prompt : str, sequence of int or Int[Tensor, "pos"]
        One prompt; text where the model has a tokenizer.
    max_new_tokens : int
        How many tokens to generate at the most.
    iterations : int, optional
        Iterations a token, the most where there is an exit rule; by default the model's depth.
    exit_rule : ExitRule or str, optional
        When a token leaves the loop: a rule or its name, such as ``"kl"``, ``"latent-diff:0.01"``
        or ``"gate:0.7"``. The prompt runs all iterations in any case; the rule decides what its
        last position is read out from.
    initial_state : optional
        As for :meth:`LoopedTransformer.initial_state`; position ``p`` gets row ``p``. A tensor must
        broadcast over prompt and generated tokens, or over the prompt with ``continuous_start``.
    continuous_start : bool
        Start each generated token from the last state of the position before it instead.
    kv : str or CacheStrategy
        ``full``, ``latest``, ``last``, ``first``, ``shared:K``: see :class:`CacheStrategy`. With an
        exit rule, the latest iteration of a position that left early stands in for missing ones.
    temperature : float
        0 takes the most probable token; otherwise tokens are drawn.
    seed : int
        Seed of that draw. Initial states are seeded by ``initial_state``.
    stop_tokens : collection of int
        Ids that end the text; the one that did is kept.
    record : bool
        Keep the states.

    Returns
    -------
    Generation
        Tokens, logits, exits and states, on the model's device.

    Raises
    ------
    InputError
        If the prompt is empty or a batch, the text would grow past ``n_ctx``, an argument is
        out of range, or the model lacks what the rule or the start needs.

    Notes
    -----
    Hooks placed with ``model.hooks(...)`` around the call fire as in a forward and read the
    iteration from ``model.clock``.

    References
    ----------
    Geiping et al., arXiv:2502.05171, section 6 (adaptive exits, cache sharing, continuous start).

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> ll.generate(model, "3+4*2", max_new_tokens=1, exit_rule="kl").states.shape
    torch.Size([1, 17, 64])
    """
    if not isinstance(model, LoopedTransformer):
        raise InputError(
            f"expected a LoopedTransformer (see looplens.load_model), got {type(model).__name__}"
        )
    count = model.check_iterations(iterations)
    rule = None if exit_rule is None else parse_exit_rule(exit_rule)
    _check_gate(model, rule)
    if continuous_start and model.cfg.injection == "none":
        raise InputError(
            "continuous_start needs a model that injects the token in every iteration: this one "
            "would never see what it generated"
        )
    ids = _prompt(model, prompt)
    positions = _positions(model, ids.shape[1], max_new_tokens)
    if not temperature >= 0:
        raise InputError(f"temperature must not be negative, got {temperature}")
    strategy = CacheStrategy.parse(kv)
    if rule is not None:
        strategy = replace(strategy, missing="latest")
    cache = LoopedCache(model, positions=positions, iterations=count, strategy=strategy)
    starts = Starts(model, initial_state, ids.shape[1] if continuous_start else positions)
    draw = torch.Generator().manual_seed(seed)

    thoughts: list[_Thought] = []
    chosen: list[int] = []
    with caching(model, cache), model.clock.forward(count):
        chunk, offset = ids, 0
        while True:
            model.position_offset = offset
            carried = thoughts[-1].answer if continuous_start and thoughts else None
            thoughts.append(_think(model, chunk, count, rule, starts, carried))
            chosen.append(_choose(thoughts[-1].logits, temperature, draw))
            if len(chosen) == max_new_tokens or chosen[-1] in stop_tokens:
                break
            offset += chunk.shape[1]
            chunk = ids.new_tensor([[chosen[-1]]])

    def column(values: list[int] | list[bool]) -> Tensor:
        return torch.tensor(values, device=ids.device)

    return Generation(
        prompt_ids=ids[0],
        token_ids=column(chosen),
        text=None if model.tokenizer is None else model.tokenizer.decode(chosen),
        logits=torch.stack([thought.logits for thought in thoughts]),
        exits=column([thought.exit for thought in thoughts]),
        fired=column([thought.fired for thought in thoughts]),
        iterations_used=column([len(thought.path) - 1 for thought in thoughts]),
        iterations=count,
        states=_rectangle([thought.path for thought in thoughts], count) if record else None,
        kv=str(strategy),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Thought:
    """What the last position of a chunk went through."""

    path: list[Float[Tensor, " d_model"]]  # iteration 0 first
    answer: Float[Tensor, "1 1 d_model"]  # the state that was read out
    logits: Float[Tensor, " d_vocab"]
    exit: int
    fired: bool


def _think(
    model: LoopedTransformer,
    chunk: Int[Tensor, "1 pos"],
    iterations: int,
    rule: ExitRule | None,
    starts: Starts,
    carried: Tensor | None,
) -> _Thought:
    """Run one chunk through the model: the whole prompt, or one generated token."""
    is_prompt = model.position_offset == 0
    embedding = model.token_embedding(chunk)
    injected = model.run_prelude(embedding)
    state = starts.at(embedding, injected) if carried is None else carried
    monitor = None if rule is None else rule.start(state[:, -1:])
    path = [state[0, -1]]
    answer, exit_step, logits = state[:, -1:], 0, None
    for t in range(1, iterations + 1):
        with model.clock.at(t):
            state = model.step(state, injected)
            path.append(state[0, -1])
            if monitor is None or exit_step:
                continue
            answer = state[:, -1:]
            logits, seen = _observe(model, monitor.rule, state, t)
            if monitor.see(seen).item():
                exit_step = t
                if not is_prompt:
                    break
    fired = bool(exit_step)
    exit_step = exit_step or iterations
    answer = answer if fired else state[:, -1:]
    # A prompt that was read out on the way left the coda's keys of that iteration behind.
    if logits is None or exit_step < len(path) - 1:
        with model.clock.at(exit_step):
            logits = model.readout(torch.cat((state[:, :-1], answer), dim=1))
    return _Thought(path=path, answer=answer, logits=logits[0, -1], exit=exit_step, fired=fired)


def _observe(
    model: LoopedTransformer, rule: ExitRule, state: Tensor, iteration: int
) -> tuple[Tensor | None, Observation]:
    """Return the readout where the rule asks for it, and what it sees of the last position."""
    last = state[:, -1:]
    if rule.reads == "logits":
        logits = model.readout(state)
        return logits, Observation(iteration=iteration, state=last, logits=logits[:, -1:])
    if rule.reads == "gate_logits":
        return None, Observation(iteration=iteration, state=last, gate_logits=model.gate(last))
    return None, Observation(iteration=iteration, state=last)


def _choose(logits: Float[Tensor, " d_vocab"], temperature: float, draw: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # Drawn on the CPU, so that a seed means the same on every device.
    return int(torch.multinomial((logits.cpu() / temperature).softmax(-1), 1, generator=draw))


def _rectangle(
    paths: list[list[Tensor]], iterations: int
) -> Float[Tensor, "token iteration_and_initial d_model"]:
    """Stack paths of unequal length: a token that has left stays where it stopped."""
    return torch.stack(
        [torch.stack(path + path[-1:] * (iterations + 1 - len(path))) for path in paths]
    )


def _prompt(model: LoopedTransformer, prompt: str | Sequence[int] | Tensor) -> Int[Tensor, "1 pos"]:
    ids = check_tokens(model.to_tokens(prompt), model.cfg)
    if len(ids) != 1:
        raise InputError(
            f"generate takes one prompt at a time, got a batch of {len(ids)}: its tokens may leave "
            "the loop after different iterations"
        )
    return ids


def _positions(model: LoopedTransformer, prompt: int, max_new_tokens: int) -> int:
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be an integer of at least 1, got {max_new_tokens!r}")
    positions = prompt + max_new_tokens - 1  # the last token is not fed back
    if positions > model.cfg.n_ctx:
        raise InputError(
            f"a prompt of {prompt} tokens and {max_new_tokens} new ones need {positions} "
            f"positions, more than n_ctx={model.cfg.n_ctx}: at most "
            f"{model.cfg.n_ctx - prompt + 1} can be generated"
        )
    return positions


def _check_gate(model: LoopedTransformer, rule: ExitRule | None) -> None:
    if rule is not None and rule.reads == "gate_logits" and not _has_gate(model):
        raise InputError(
            f"{type(rule).__name__} reads the exit gate, and {model.model_name!r} has none"
        )


def _has_gate(model: LoopedTransformer) -> bool:
    return bool(getattr(model.cfg, "exit_gate", False)) and hasattr(model, "gate")
