"""Where an intervention takes activations from: a tensor, a cache, a trace or a stored run.

A donor answers one question: what did this site hold in this pass? It knows neither what is done
with the answer nor at which tokens.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from looplens.errors import InputError, SiteError
from looplens.models import LoopCache
from looplens.recording.tracing import Trace
from looplens.store.reading.stored import StoredRun

DonorLike: TypeAlias = "Tensor | LoopCache | Trace | StoredRun"
_CORE_SITE = re.compile(r"(?:.+\.)?core\.(\d+)\.(?:attn\.)?hook_(\w+)")
_STATE = "hook_state"


class Donor(Protocol):
    """Activations by site and pass."""

    def at(self, site: str, iteration: int | None) -> Tensor:
        """Return what ``site`` held in pass ``iteration``, ``None`` outside the loop.

        The result may lack the batch axis. Raises InputError where the donor does not hold it.
        """

    def describe(self) -> dict[str, Any]:
        """Say what the donor is, in values that JSON can hold."""


def as_donor(source: DonorLike, *, prompt: int | None = None, restart: int = 0) -> Donor:
    """Return a donor over what the caller has.

    Parameters
    ----------
    source : Tensor, LoopCache, Trace or Run
        A tensor has passes first: row 0 is pass 1. Everything else knows its passes.
    prompt : int, optional
        Of a run; may be left out where the run holds one prompt.
    restart : int
        Of a run.

    Raises
    ------
    InputError
        If the source is something else, or the prompt or restart does not exist.
    """
    if isinstance(source, StoredRun):
        return _FromRun(source, prompt, restart)
    if prompt is not None or restart:
        raise InputError(
            f"prompt and restart choose a part of a run, but the donor is a {type(source).__name__}"
        )
    if isinstance(source, LoopCache):
        return _FromCache(source)
    if isinstance(source, Trace):
        return _FromTrace(source)
    if isinstance(source, Tensor):
        return _FromTensor(source)
    raise InputError(
        "a donor must be a tensor, a LoopCache (model.run_with_cache), a Trace (looplens.trace) or "
        f"a Run (looplens.open_run), got {type(source).__name__}"
    )


def described_tensor(value: Tensor) -> dict[str, Any]:
    """Return shape, dtype and a digest of the numbers, enough to tell two tensors apart."""
    numbers = value.detach().cpu().contiguous()
    digest = hashlib.sha256(numbers.reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "shape": list(value.shape),
        "dtype": str(value.dtype).removeprefix("torch."),
        "sha256": digest.hexdigest()[:16],
    }


class _FromTensor:
    def __init__(self, values: Tensor) -> None:
        if values.ndim < 2:
            raise InputError(
                "a tensor to clamp to needs passes first and activations behind, e.g. "
                f"[iteration, batch, pos, d_model], got shape {tuple(values.shape)}"
            )
        self.values = values

    def at(self, site: str, iteration: int | None) -> Tensor:
        if iteration is None:
            raise InputError(
                f"{site!r} fired outside the loop, where a tensor of passes says nothing: use "
                "Intervention.replace"
            )
        return self.values[_row(iteration, len(self.values), "the donor tensor")]

    def describe(self) -> dict[str, Any]:
        return {"from": "tensor", **described_tensor(self.values)}


class _FromCache:
    def __init__(self, cache: LoopCache) -> None:
        self.cache = cache

    def at(self, site: str, iteration: int | None) -> Tensor:
        try:
            return self.cache[site if iteration is None else f"{site}@{iteration}"]
        except KeyError as error:
            raise InputError(f"the donor cache does not hold it: {error.args[0]}") from None

    def describe(self) -> dict[str, Any]:
        return {"from": "cache", "sites": self.cache.sites, "activations": len(self.cache)}


class _FromTrace:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def at(self, site: str, iteration: int | None) -> Tensor:
        layer, family = _place(site)
        values = {
            "state": self.trace.states[1:],
            "resid_post": self.trace.layer_states,
            "pattern": self.trace.attention,
        }.get(family)
        if values is None or iteration is None:
            held = "hook_state, core.*.hook_resid_post"
            if self.trace.attention is not None:
                held += ", core.*.attn.hook_pattern"
            raise InputError(f"the donor trace does not hold {site!r} but {held}")
        passes = values if layer is None else values[:, layer]
        return passes[_row(iteration, len(passes), "the donor trace")]

    def describe(self) -> dict[str, Any]:
        return {"from": "trace", **described_tensor(self.trace.states)}


class _FromRun:
    def __init__(self, run: StoredRun, prompt: int | None, restart: int) -> None:
        if prompt is None and run.n_prompts > 1:
            raise InputError(
                f"the donor run holds {run.n_prompts} prompts: say which one with prompt="
            )
        self.run, self.prompt, self.restart = run, prompt or 0, restart
        self.tokens = run.token_range(self.prompt)
        if not 0 <= restart < run.restarts:
            raise InputError(f"the donor run has restarts 0..{run.restarts - 1}, not {restart}")
        self._read: dict[str, dict[int, Tensor]] = {}

    def at(self, site: str, iteration: int | None) -> Tensor:
        if iteration is None:
            raise InputError(f"{site!r} fired outside the loop, of which a run stores nothing")
        if site not in self._read:
            self._read[site] = self._load(site)
        passes = self._read[site]
        if iteration not in passes:
            _row(iteration, self.run.iterations, "the donor run")
            raise InputError(
                f"the donor run did not keep pass {iteration} but {len(passes)} others of its "
                f"{self.run.iterations}: name kept passes in the address, or record a donor with "
                "keep_iterations='all'"
            )
        return passes[iteration]

    def _load(self, site: str) -> dict[int, Tensor]:
        layer, family = _place(site)
        run, restart, tokens = self.run, self.restart, self.tokens
        if family == "state":
            array = run.state(restart=restart, tokens=tokens).sel(iteration=slice(1, None))
        elif family == "pattern":
            array = run.attention(self.prompt, restart=restart, layer=layer)
        elif family in run.site_names:
            array = run.site(family, restart=restart, tokens=tokens, layer=layer)
        else:
            held = ", ".join(("hook_state", *run.site_names))
            raise InputError(f"the donor run does not hold {site!r} but {held}")
        rest = [dim for dim in array.dims if dim != "iteration"]
        values = torch.from_numpy(array.transpose("iteration", *rest).values)
        numbers = array["iteration"].values.tolist()
        return {int(number): value for number, value in zip(numbers, values, strict=True)}

    def describe(self) -> dict[str, Any]:
        return {
            "from": "run",
            "model": self.run.model_name,
            "input_hash": self.run.input_hash(),
            "prompt": self.prompt,
            "restart": self.restart,
        }


def _place(site: str) -> tuple[int | None, str]:
    """Return layer and family of a site of the loop: ``(2, "resid_post")``, ``(None, "state")``."""
    if site == _STATE:
        return None, "state"
    match = _CORE_SITE.fullmatch(site)
    if match is None:
        raise SiteError(f"traces and runs hold sites of the core, and {site!r} is none")
    return int(match[1]), match[2]


def _row(iteration: int, passes: int, what: str) -> int:
    if iteration > passes:
        raise InputError(
            f"{what} has {passes} passes, but pass {iteration} is to be clamped: name the passes "
            f"in the address, e.g. '@1:{passes + 1}', or record a longer donor"
        )
    return iteration - 1
