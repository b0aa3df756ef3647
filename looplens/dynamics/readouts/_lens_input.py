"""The recorded states that a lens is held before, as tensors of the model's dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from looplens.dynamics.maps.step_checks import check_sizes
from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun


@dataclass(frozen=True, kw_only=True, slots=True)
class LensInput:
    """States of one prompt from one start.

    Attributes
    ----------
    prompt, restart : int
        Which ones.
    tokens : slice
        Global token numbers.
    token_ids : Tensor, (token,)
        Their ids.
    whole : bool
        Whether they are all tokens of the prompt.
    layers, iterations : tuple of int
        Numbers of what was chosen.
    iterations_run, final_iteration : int
        T, and the last iteration that is recorded.
    streams : Tensor, (token, layer, iteration, d_model)
        Residual stream after each layer.
    last_stream : Tensor or None, (1, token, d_model)
        The one after the last layer of iteration T; None where it was not recorded.
    final_state : Tensor, (1, token, d_model)
        Loop state after `final_iteration`.
    """

    prompt: int
    restart: int
    tokens: slice
    token_ids: Tensor
    whole: bool
    layers: tuple[int, ...]
    iterations: tuple[int, ...]
    iterations_run: int
    final_iteration: int
    streams: Tensor
    last_stream: Tensor | None
    final_state: Tensor

    def batches(self, rows: int) -> Iterator[tuple[int, slice, Tensor]]:
        """Yield streams of some iterations, (iteration, token, d_model), with their place.

        Parameters
        ----------
        rows : int
            Most tokens of all iterations of a batch together.
        """
        tokens, layers, iterations = self.streams.shape[:3]
        step = max(1, rows // tokens)
        for layer in range(layers):
            for start in range(0, iterations, step):
                where = slice(start, min(start + step, iterations))
                yield layer, where, self.streams[:, layer, where].transpose(0, 1).contiguous()


def chosen_states(
    model: Any,
    run: StoredRun,
    prompt: int,
    restart: int,
    layers: Sequence[int] | None,
    iterations: Sequence[int] | None,
) -> LensInput:
    """Read what a lens needs of a run, and check it against the model.

    Raises
    ------
    InputError
        If a number is out of range, or the model has another shape than the one recorded.
    AnalysisError
        If the run does not hold what is needed.
    """
    check_sizes(model, run)
    tokens = run.token_range(prompt)
    length = int(run.prompts["length"].values[prompt])
    whole = tokens.stop - tokens.start == length
    _check_run(model, run, whole)
    chosen_layers = _numbers("layers", layers, run.recorded_layers)
    chosen_iterations = _numbers("iterations", iterations, run.kept_iterations)
    last = run.kept_iterations[-1]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=model.device).to(model.dtype)

    def stream(layer: int) -> Any:
        return run.site("resid_post", restart=restart, tokens=tokens, layer=layer)

    streams = [stream(layer).sel(iteration=list(chosen_iterations)) for layer in chosen_layers]
    last_stream = None
    if run.n_layers - 1 in run.recorded_layers and last == run.iterations:
        last_stream = tensor(stream(run.n_layers - 1).sel(iteration=last).values)[None]
    state = run.state(restart=restart, tokens=tokens).sel(iteration=last)
    return LensInput(
        prompt=int(prompt),
        restart=int(restart),
        tokens=tokens,
        token_ids=torch.tensor(run.tokens["token_id"].values[tokens].astype(np.int64)).to(
            model.device
        ),
        whole=whole,
        layers=chosen_layers,
        iterations=chosen_iterations,
        iterations_run=run.iterations,
        final_iteration=last,
        streams=tensor(np.stack([values.values for values in streams], axis=1)),
        last_stream=last_stream,
        final_state=tensor(state.values)[None],
    )


def _check_run(model: Any, run: StoredRun, whole: bool) -> None:
    if "resid_post" not in run.site_names:
        raise AnalysisError(
            "A lens needs the residual stream after each layer, and this run lacks it. Record with "
            "sites=('resid_post',)."
        )
    if run.is_reduced:
        raise AnalysisError(
            f"A lens needs states in all {run.d_model} dimensions, and this run keeps {run.width} "
            "components of them. Record without reduce=."
        )
    config = getattr(getattr(model, "model", None), "cfg", None)
    by_token = config is not None and not config.n_coda
    if not whole and not by_token:
        raise AnalysisError(
            "The coda looks at all tokens of a prompt, and this run keeps some of them. Record "
            "with tokens='all'."
        )


def _numbers(name: str, wanted: Sequence[int] | None, held: tuple[int, ...]) -> tuple[int, ...]:
    if wanted is None:
        return held
    chosen = tuple(int(number) for number in np.atleast_1d(np.asarray(wanted)))
    missing = [number for number in chosen if number not in held]
    if missing or not chosen:
        listed = ", ".join(map(str, held[:12])) + (", ..." if len(held) > 12 else "")
        raise InputError(f"{name}={wanted!r}, but this run holds the {name} {listed}.")
    return chosen
