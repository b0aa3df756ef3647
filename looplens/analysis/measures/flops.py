"""How much arithmetic a looped model spends, from its configuration alone.

Matrix products only, a multiplication and an addition each counted as one operation, as
``torch.utils.flop_counter`` does: norms, softmax, activations, rotations and the look-up of the
embedding are left out. The formula is held against that counter in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

GIGA = 1e9
_NEEDED = ("d_model", "n_heads", "d_mlp", "d_vocab", "n_core")
_KNOWN_MLPS = {"swiglu": 3, "relu2": 2}  # how many matrices


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Operations of one token's way through a looped model, part by part.

    Attributes
    ----------
    prelude : ndarray, shape (...)
        Layers before the loop.
    first : ndarray, shape (...)
        The first iteration, which may inject nothing.
    iteration : ndarray, shape (...)
        Each later iteration: injection and core layers.
    readout : ndarray, shape (...)
        One readout: map, coda and head.
    gate : ndarray, shape (...)
        One look of a linear exit gate at the state.
    """

    prelude: Floats
    first: Floats
    iteration: Floats
    readout: Floats
    gate: Floats

    def at(self, places: NDArray[np.int64]) -> Flops:
        """Return the counts of some of the tokens."""
        return Flops(**{name: getattr(self, name)[places] for name in Flops.__slots__})

    def mean(self) -> Flops:
        """Return the means over all tokens; of tokens with one depth also those of their totals."""
        return Flops(**{name: getattr(self, name).mean() for name in Flops.__slots__})

    def total(
        self, iterations: ArrayLike, *, readouts: ArrayLike = 1, gates: ArrayLike = 0
    ) -> Floats:
        """Return the operations of a token that leaves after so many iterations.

        ``prelude + first + (iterations - 1) iteration + readouts readout + gates gate``.

        Parameters
        ----------
        iterations : array_like, shape (...)
            At least 1; NaN gives NaN.
        readouts, gates : array_like
            How often the model was read out, and how often an exit gate was asked.

        Returns
        -------
        ndarray of float64
        """
        count = np.asarray(iterations, dtype=np.float64)
        looped = self.first + (count - 1) * self.iteration
        looks = np.asarray(readouts) * self.readout + np.asarray(gates) * self.gate
        return self.prelude + looped + looks


def flops(config: Mapping[str, Any], keys: ArrayLike) -> Flops:
    r"""Count the operations of tokens that attend to so many positions.

    For a layer of width :math:`d` with :math:`H` heads, :math:`G` key/value heads of width
    :math:`h` and an MLP of width :math:`m` with :math:`w` matrices, at a token with :math:`n`
    positions to attend to:

    .. math:: 2 d h (2 H + 2 G) + 4 H h n + 2 w d m

    An injection by a matrix of state and input adds :math:`4 d^2` to an iteration, a diagonal one
    :math:`2 d^2`; the head adds :math:`2 d V` to a readout and a readout map :math:`2 d^2`.

    Parameters
    ----------
    config : mapping
        Configuration of a looped transformer: ``run.model["config"]``, or
        ``model.cfg.to_dict()``.
    keys : array_like of int, shape (...)
        Positions that the token attends to, itself included: its position plus one while a
        sequence is written or read causally, the whole length for kernels that compute the
        square and mask it.

    Returns
    -------
    Flops
        Arrays of the shape of `keys`.

    Raises
    ------
    InputError
        If the configuration is not that of a looped transformer, or a position attends to nothing.
    """
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        raise InputError(
            f"Operations are counted from the configuration of a looped transformer; this one "
            f"lacks {', '.join(missing)}. Pass model.cfg.to_dict()."
        )
    seen = np.asarray(keys, dtype=np.float64)
    if np.any(seen < 1):
        raise InputError(f"A token attends to at least itself; got {seen.min():g} positions.")
    width, heads = int(config["d_model"]), int(config["n_heads"])
    kv_heads = int(config.get("n_kv_heads") or heads)
    head_width = int(config.get("d_head") or width // heads)
    mlp = config.get("mlp", "swiglu")
    if mlp not in _KNOWN_MLPS:
        raise InputError(f"mlp must be one of {', '.join(_KNOWN_MLPS)}, got {mlp!r}.")
    projections = 2 * width * head_width * (2 * heads + 2 * kv_heads)
    layer = projections + 2 * _KNOWN_MLPS[mlp] * width * int(config["d_mlp"])
    layer_at = layer + 4 * heads * head_width * seen
    sizes = [int(config.get(name, 0)) for name in ("n_prelude", "n_core", "n_coda")]
    gated = config.get("value_embeddings", ())
    edges = np.cumsum([0, *sizes])
    gate_of_values = 2 * int(config.get("value_gate_width", 0)) * kv_heads
    sections = [
        count * layer_at + gate_of_values * sum(start <= number < stop for number in gated)
        for count, start, stop in zip(sizes, edges[:-1], edges[1:], strict=True)
    ]
    injection = {"linear": 4 * width**2, "diagonal": 2 * width**2}.get(
        config.get("injection", "linear"), 0
    )
    prelude, core, coda = sections
    head = 2 * width * int(config["d_vocab"])
    readout_map = 2 * width**2 * bool(config.get("readout_map", False))
    return Flops(
        prelude=prelude,
        first=core + injection * bool(config.get("first_injection", True)),
        iteration=core + injection,
        readout=coda + head + readout_map,
        gate=np.full(seen.shape, 2.0 * width),
    )


def run_flops(run: StoredRun) -> Flops | None:
    """Count the operations of every token of a run, each attending to itself and those before.

    Parameters
    ----------
    run : StoredRun
        The run.

    Returns
    -------
    Flops or None
        Arrays of shape (token,); None where the run's model is not described well enough, as
        wrapped models are not.
    """
    config = run.model.get("config")
    if not isinstance(config, Mapping) or any(name not in config for name in _NEEDED):
        return None
    positions: NDArray[np.int64] = run.tokens["position"].values.astype(np.int64)
    # Of tokens that are not recorded yet the position is not known either.
    return flops(config, np.maximum(positions, 0) + 1)


def per_gflop(accuracy: ArrayLike, gflops: ArrayLike) -> Floats:
    """Return accuracy over cost, in correct answers per billion operations; NaN without a cost."""
    spent = np.asarray(gflops, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spent > 0, np.asarray(accuracy, dtype=np.float64) / spent, np.nan)
