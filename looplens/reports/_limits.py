"""What a run does not allow to say, and why: the section that keeps a report honest.

Each limit is found from the recording itself, and says what to record to lift it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from looplens.analysis import KINDS_OF_REGIMES
from looplens.analysis.measures import power
from looplens.plots._labels import percent
from looplens.plots._select import listed
from looplens.reports._material import Material
from looplens.reports._recorded import plural, tokens_run
from looplens.reports._report import Statement

ENOUGH_ITERATIONS = 128
"""Iterations from which regime verdicts are recommended; below 32 the detector is weak."""
FEW_ITERATIONS = 32
_SAMPLED_TOKENS = 512
_COARSE = {"bfloat16": "about 1 %", "float16": "about 0.1 %"}


def limits(material: Material) -> tuple[Statement, ...]:
    """Return what could not be concluded, and why.

    Parameters
    ----------
    material : Material
        The run and its analyses.
    """
    return tuple(
        statement
        for find in (
            _incomplete,
            _unreadable,
            _non_finite,
            _iterations,
            _kept,
            _reduced,
            _unresolved,
            _orbits,
            _restarts,
            _targets,
            _layers,
            _attention,
            _precision,
            _failed,
        )
        for statement in find(material)
    )


def _incomplete(material: Material) -> Iterator[Statement]:
    run = material.run
    if not run.complete:
        yield Statement(
            key="incomplete",
            text=f"The recording is not complete: {len(run.committed)} of "
            f"{plural(run.n_blocks, 'block')} are recorded, so everything here is of "
            f"{plural(int(run.committed_tokens.sum()), 'token')} of {run.n_tokens}. Record the "
            "rest with resume=True (--resume on the command line).",
        )


def _unreadable(material: Material) -> Iterator[Statement]:
    """Say of which tokens the files are damaged, as the analyses counted them."""
    counts = [found.attrs.get("tokens_unreadable", 0) for found in material.results.values()]
    worst = int(max(counts, default=0))
    if worst:
        yield Statement(
            key="unreadable",
            text=f"{plural(worst, 'token')} could not be read, because files are damaged, and are "
            "left out. `looplens verify` names the files; record their blocks again.",
        )


def _non_finite(material: Material) -> Iterator[Statement]:
    if material.run.non_finite:
        named = ", ".join(f"{name} ({count})" for name, count in material.run.non_finite.items())
        yield Statement(
            key="non_finite",
            text="Trajectories with numbers that are not finite have no limit and no regime: "
            f"{named}.",
        )


def _iterations(material: Material) -> Iterator[Statement]:
    iterations = material.run.iterations
    if iterations >= ENOUGH_ITERATIONS:
        return
    if iterations < 16:
        effect = "too few to tell any regime from a transient"
    elif iterations < FEW_ITERATIONS:
        effect = "few enough for a slow transient to pass for an orbit or a slider"
    else:
        effect = (
            "enough for most regimes, but a transient that lasts longer than the recording cannot "
            "be told from a slider"
        )
    yield Statement(
        key="iterations",
        text=f"Only {plural(iterations, 'iteration')} were recorded: {effect}. Record "
        f"{ENOUGH_ITERATIONS} or more for firm verdicts.",
    )


def _kept(material: Material) -> Iterator[Statement]:
    """Say what the selection at the source takes from the analyses."""
    run = material.run
    if not run.all_iterations:
        yield Statement(
            key="kept_iterations",
            text=f"What happens between the {plural(len(run.kept_iterations), 'iteration')} that "
            f"were kept of {run.iterations} ({listed(run.kept_iterations)}): whatever needs every "
            "iteration is missing. Record with keep_iterations='all'.",
        )
    if len(run.recorded_layers) < run.n_layers and run.site_names:
        yield Statement(
            key="kept_layers",
            text=f"What happens in the other layers: of {run.n_layers}, "
            f"{listed(run.recorded_layers)} were kept. Record with layers=None.",
        )
    if tokens_run(run) > run.n_tokens:
        yield Statement(
            key="kept_tokens",
            text=f"What the other tokens do: of {plural(tokens_run(run), 'token')}, "
            f"{run.n_tokens} were kept, and every share and median is of these. Record with "
            "tokens='all'.",
        )


def _reduced(material: Material) -> Iterator[Statement]:
    """Say how much of the states the reduction left out, from tokens spread over the run."""
    run = material.run
    if not run.is_reduced:
        return
    recorded = np.flatnonzero(run.committed_tokens)
    if not recorded.size:
        return
    chosen = recorded[:: -(-recorded.size // _SAMPLED_TOKENS)]
    left_out = run.discarded("state", tokens=chosen).values
    left_out = left_out[np.isfinite(left_out)]
    if not left_out.size:
        return
    yield Statement(
        key="reduced",
        text=f"What lies outside the {plural(run.width, 'dimension')} that states were reduced to "
        f"({run.reduction.kind}, of {run.d_model}): they leave out {percent(np.median(left_out))} "
        f"of the squared norm in the median state and {percent(left_out.max())} in the worst "
        f"(of {plural(chosen.size, 'token')}). Motion there is not seen.",
    )


def _unresolved(material: Material) -> Iterator[Statement]:
    if "classify" not in material:
        return
    regime, kind = (material["classify"][name].values.ravel() for name in ("regime", "kind"))
    without = regime == "unresolved"
    if not without.any():
        return
    meaning = KINDS_OF_REGIMES["unresolved"]
    counts = Counter(map(str, kind[without])).most_common()
    listed = "; ".join(
        f"{count} {name.replace('_', ' ')} ({meaning.get(name, 'no reason given')})"
        for name, count in counts
    )
    total = plural(regime.size, "trajectory", "trajectories")
    yield Statement(
        key="unresolved",
        text=f"{int(without.sum())} of {total} have no regime: {listed}.",
    )


def _orbits(material: Material) -> Iterator[Statement]:
    """Say what not having seen an orbit is worth; restarts of a token are not new tokens."""
    if "classify" not in material:
        return
    regime = material["classify"]["regime"].transpose("restart", "token").values
    if (regime == "orbit").any():
        return
    tokens = int((regime != "unresolved").any(0).sum())
    text = f"No orbit was found among {plural(tokens, 'token')} with a regime"
    if tokens:
        excluded = percent(power.largest_rate_unseen(tokens))
        text += (
            f", which rules out (at 95 %) only orbits in more than {excluded} of the tokens. The "
            "section on regimes says how many tokens it takes to see one."
        )
    else:
        needed = "; ".join(
            f"{plural(power.tokens_needed(rate), 'token')} where {percent(rate)} do not settle "
            f"({source})"
            for rate, source in power.BASE_RATES
        )
        text += f". To see one with a probability of 95 % takes {needed}."
    yield Statement(key="orbits", text=text)


def _restarts(material: Material) -> Iterator[Statement]:
    run = material.run
    if run.restarts < 2:
        yield Statement(
            key="restarts",
            text="Whether the end depends on the initial state: only one restart was recorded. "
            "Record with restarts=2 or more.",
        )
    elif run.initial_state in ("zeros", "embedding", "prelude"):
        yield Statement(
            key="restarts",
            text=f"Whether the end depends on the initial state: the scheme {run.initial_state!r} "
            "draws nothing, so restarts may all start in the same place.",
        )


def _targets(material: Material) -> Iterator[Statement]:
    run = material.run
    if not run.has_readout:
        yield Statement(
            key="readout",
            text="What the model would answer after each iteration: no readout was recorded. "
            "Record with readout=True (--readout on the command line).",
        )
    elif not (np.asarray(run.tokens["target"].values) >= 0).any():
        yield Statement(
            key="targets",
            text="Whether the answers are right: the prompts carry no targets, so there is no "
            "accuracy.",
        )


def _layers(material: Material) -> Iterator[Statement]:
    run = material.run
    if run.n_layers < 2:
        yield Statement(
            key="layers",
            text="Whether layers have limits of their own: this model loops over one layer only.",
        )
    elif "resid_post" not in run.site_names:
        yield Statement(
            key="layers",
            text="What happens inside an iteration: states after each layer were not recorded. "
            "Record with sites=('resid_post',).",
        )


def _attention(material: Material) -> Iterator[Statement]:
    if not material.run.attention_prompts:
        yield Statement(
            key="attention",
            text="Whether attention stabilises: no attention was recorded. Name the prompts to "
            "record it for.",
        )


def _precision(material: Material) -> Iterator[Statement]:
    run = material.run
    for key, dtype, what in (
        ("source_dtype", run.source_dtype, "The model computed"),
        ("store_dtype", run.attrs.get("store_dtype", run.source_dtype), "The states are stored"),
    ):
        if dtype in _COARSE:
            yield Statement(
                key=key,
                text=f"{what} in {dtype}: motion below {_COARSE[dtype]} of the state is rounding, "
                "so smaller orbits, drifts and distances between restarts cannot be seen. "
                "Record in float32.",
            )


def _failed(material: Material) -> Iterator[Statement]:
    """Whatever else is missing: an analysis that failed, in its own words."""
    if not material.run.committed:  # nothing is there that an analysis could fail on
        return
    explained = {
        "path_independence": material.run.restarts < 2,
        "basins": material.run.restarts < 2,
        "input_dependence": material.run.restarts < 2,
        "readout": not material.run.has_readout,
        "exits": not material.run.has_readout,
        "cycle": len(material.run.recorded_layers) < 2
        or "resid_post" not in material.run.site_names,
        "attention_change": not material.run.attention_prompts,
    }
    for name, reason in material.reasons.items():
        if not explained.get(name, False):
            yield Statement(
                key=f"analysis_{name}", text=f"The analysis {name!r} is missing: {reason}"
            )
