"""Spectra of models: blocks against the sequence and the eigenvalues, sublayers, paths, figures."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import looplens as ll
from looplens import plots
from looplens.dynamics import lyapunov_spectra
from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.exponents.sublayers import Staged, sublayers_of
from looplens.dynamics.exponents.trajectories import trajectory_of
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer

IDS = [5, 7, 5, 8, 3, 8, 2, 8, 5, 8, 5, 8]


@pytest.fixture(scope="module")
def model():
    return ll.load_model("affine-huginn-mini")


@pytest.fixture(scope="module")
def found(model):
    return lyapunov_spectra(model, IDS, iterations=64, k=6, sequence=True)


def small(**more):
    torch.manual_seed(2)
    cfg = LoopedConfig(
        d_model=16, n_heads=2, d_mlp=24, d_vocab=12, n_ctx=32, n_prelude=1, n_core=2, **more
    )
    return LoopedTransformer(cfg)


def test_settled_tokens_have_the_logarithm_of_the_spectral_radius(model, found):
    taken = recorded(model, IDS, iterations=64)
    map_ = TokenMap(taken.step, taken.at(), range(taken.n_pos))
    radius = np.log(leading(map_, taken.at(), 2).spectral_radius)
    leads = found["exponents"].values[:, 0]
    assert (np.abs(leads / radius - 1) < 0.05).mean() >= 0.9
    assert (found["tail_rule"] == "settled").all()
    assert (found["rest_share"] > 0.5).all()
    assert (found["regime"] == "settle").all()
    assert found["clear"].all()
    assert (found["dimension"] == 0).all()


def test_the_sequence_has_the_exponents_of_its_blocks(found):
    union = np.sort(found["exponents"].values.ravel())[::-1]
    whole = np.sort(found["sequence_exponents"].values[0])[::-1]
    np.testing.assert_allclose(whole[:3], union[:3], rtol=0.05)
    leads = found["exponents"].values[:, 0]
    np.testing.assert_array_equal(found["upstream_exponent"], np.maximum.accumulate(leads))
    at = found["upstream_token"].values
    np.testing.assert_array_equal(leads[at], found["upstream_exponent"])


def test_some_tokens_are_as_among_all(model, found):
    seen = []
    few = lyapunov_spectra(
        model, IDS, iterations=64, tokens=[-1, 4], k=2, progress=lambda *done: seen.append(done)
    )
    assert few["token"].values.tolist() == [11, 4]
    chosen = found.sel(token=[11, 4])
    np.testing.assert_allclose(few["exponents"][:, 0], chosen["exponents"][:, 0], rtol=0.03)
    np.testing.assert_allclose(few["upstream_exponent"], chosen["upstream_exponent"], rtol=0.03)
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_exponents_are_those_of_the_jacobians_written_out():
    model = small(injection="linear", norm="pre")  # norms in the stream make det J zero
    taken = recorded(model, IDS[:4], iterations=24, dtype=torch.float64)
    result = lyapunov_spectra(
        model, IDS[:4], iterations=24, tokens=2, k=16, tail=13, dtype=torch.float64
    ).isel(token=0)
    matrices = []
    for context in taken.states[:-1]:

        def own(x, context=context):
            return taken.step(torch.cat([context[:2], x[None], context[3:]])[None])[0, 2]

        matrices.append(torch.autograd.functional.jacobian(own, context[2]).numpy())
    # All k = n exponents add up to log |det J|, whatever the frame.
    volume = [np.linalg.slogdet(matrix)[1] for matrix in matrices]
    start = int(result["tail_start"])
    assert start == 16  # of 12 steps of the tail, 3 turn the frame
    assert result["exponents"].values.sum() == pytest.approx(np.mean(volume[start - 1 :]), rel=1e-6)
    assert result["transient_exponents"].values.sum() == pytest.approx(
        np.mean(volume[:12]), rel=1e-6
    )
    # Those of the transient are the logarithms of the singular values of its product.
    product = np.linalg.multi_dot(matrices[:12][::-1])
    stretched = np.log(np.linalg.svd(product)[1]) / 12
    np.testing.assert_allclose(result["transient_exponents"], stretched, atol=1e-3)


@pytest.mark.parametrize("norm", ["huginn", "pre", "post", "sandwich"])
@pytest.mark.parametrize("injection", ["linear", "add", "diagonal", "none"])
def test_sublayers_add_up_to_the_exponents(norm, injection):
    model = small(norm=norm, injection=injection, loop_norm=norm == "pre")
    result = lyapunov_spectra(model, IDS[:5], iterations=12, tokens=[0, 4], k=3, sequence=True)
    for total, parts in (
        ("exponents", "stretch"),
        ("transient_exponents", "transient_stretch"),
        ("sequence_exponents", "sequence_stretch"),
    ):
        np.testing.assert_allclose(result[parts].sum("sublayer"), result[total], atol=1e-9)
    names = result["sublayer"].values.tolist()
    assert ("injection" in names) == (injection != "none")
    assert ("norm 1.4" in names) == (norm == "huginn")
    assert ("loop norm" in names) == (norm == "pre")
    by_injection = result["stretch"].sel(sublayer="injection") if injection != "none" else None
    if injection == "add":
        np.testing.assert_allclose(by_injection, 0, atol=1e-6)
    if injection == "diagonal":  # at first every channel decays by the root of a fifth
        np.testing.assert_allclose(by_injection, np.log(0.2) / 2, atol=1e-5)


def test_a_direction_that_a_norm_takes_away_has_no_exponent():
    # Behind a norm in the stream, a state has a dimension less: the last of 16 is rounding.
    result = lyapunov_spectra(small(norm="huginn"), IDS[:3], iterations=12, k=16)
    for name in ("exponents", "transient_exponents", "stretch"):
        assert np.isfinite(result[name][..., :15]).all()
        assert np.isnan(result[name][..., 15]).all()


def test_places_of_a_pass_are_the_same_alone_and_in_the_prompt(model):
    taken = recorded(model, IDS, iterations=8)
    places = sublayers_of(taken.step)
    context, positions = taken.at(), [0, 5, 11]
    x = context[positions]
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    products = [
        Staged(TokenMap(taken.step, context, positions, alone=alone), places).jvp(x, v)
        for alone in (True, False)
    ]
    torch.testing.assert_close(products[0], products[1], rtol=1e-3, atol=1e-4)
    plain = TokenMap(taken.step, context, positions).jvp(x, v)
    torch.testing.assert_close(products[0][:, -64:], plain, rtol=1e-3, atol=1e-4)
    whole = Staged(SequenceMap(taken.step), places).jvp(
        context.reshape(1, -1), torch.ones(1, context.numel())
    )
    assert whole.shape == (1, len(places.names) * context.numel())


def test_gaps_are_filled_and_the_end_is_run_on(model):
    taken = recorded(model, IDS, iterations=12)
    sparse = dataclasses.replace(taken, states=taken.states[::3], iterations=taken.iterations[::3])
    filled = trajectory_of(sparse, 12)
    assert filled.first == 3  # whether the first pass is like the others cannot be told
    assert filled.computed == 6
    torch.testing.assert_close(filled.states, taken.states[3:], rtol=1e-3, atol=1e-3)
    longer = trajectory_of(taken, 15)
    assert (longer.first, longer.computed, len(longer.states)) == (0, 3, 16)
    assert len(trajectory_of(taken, 5).states) == 6
    late = dataclasses.replace(taken, states=taken.states[9:], iterations=taken.iterations[9:])
    with pytest.raises(InputError, match=r"iterations=5, but the first state .* of iteration 9"):
        trajectory_of(late, 5)


def test_a_first_pass_that_is_another_map_is_left_out():
    model = small(injection="add", first_injection=False)
    result = lyapunov_spectra(model, IDS[:4], iterations=12, k=1, sublayers=False)
    assert result.attrs["first_iteration"] == 1
    assert result["iteration"].values.tolist() == list(range(2, 13))
    assert "stretch" not in result


class Averaging(nn.Module):
    """A loop whose tokens see all others: ``h <- 0.5 tanh(W h) + 0.3 mean h``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.mix, self.noted = nn.Embedding(12, 6), nn.Linear(6, 6), nn.Identity()
        self.out, self.steps = nn.Identity(), 20

    def forward(self, ids):
        h = self.embed(ids)
        for _ in range(self.steps):
            h = 0.5 * torch.tanh(self.mix(h)) + 0.3 * h.mean(1, keepdim=True)
            h = self.noted(self.out(h) * 0.9)
        return h


@pytest.mark.parametrize(("layer", "shares"), [("out", True), ("mix", False)])
def test_wrapped_models(layer, shares):
    spec = ll.LoopSpec(
        loop=ll.Loop("step", 20),
        layers=[layer],
        state="noted",
        start="embed",
        iterations="steps",
    )
    wrapped = ll.wrap(Averaging(), spec, d_vocab=12, d_model=6)
    result = lyapunov_spectra(wrapped, IDS[:4], iterations=20, k=3, sequence=True)
    assert not result.attrs["causal"]
    assert "upstream_exponent" not in result
    assert "stretch" not in result  # a token's own derivative leaves its own stream
    assert ("sequence_stretch" in result) == shares  # of `mix`, something goes past
    if shares:
        share = result["sequence_stretch"].sel(sublayer="rest of the pass")
        np.testing.assert_allclose(share, np.log(0.9), atol=1e-5)


def test_bad_choices(model):
    with pytest.raises(InputError, match="k=65, but a token's state has 64 dimensions"):
        lyapunov_spectra(model, IDS, iterations=8, k=65)
    with pytest.raises(InputError, match="at least 4 steps, and there are 3"):
        lyapunov_spectra(model, IDS, iterations=3)
    with pytest.raises(InputError, match="cut must not be negative"):
        lyapunov_spectra(model, IDS, iterations=8, cut=-1)
    with pytest.raises(InputError, match="tokens="):
        lyapunov_spectra(model, IDS, iterations=8, tokens=[40])


def test_results_say_what_they_are_and_are_stored(model, found, tmp_path):
    assert all("long_name" in v.attrs and "units" in v.attrs for v in found.data_vars.values())
    json.dumps(found.attrs)
    assert found.attrs["attention"].startswith("written out")  # a token alone, held keys
    assert found.attrs["sequence_attention"].startswith("math")
    assert found["prompt"].values.tolist() == [0] * len(IDS)
    assert found["position"].values.tolist() == list(range(len(IDS)))
    run = ll.record(model, [IDS], iterations=24, out=tmp_path / "run")
    result = lyapunov_spectra(model, run, k=3)
    run.write_analysis("dynamics/lyapunov", result, version=1)
    again = run.analysis("dynamics/lyapunov")
    np.testing.assert_array_equal(again["exponents"], result["exponents"])
    for theme in ("light", "dark"):
        assert "settle" in plots.lyapunov(run, 3, theme=theme).layout.title.subtitle.text
        assert plots.lyapunov_tokens(run, 3, theme=theme).layout.title.text


def test_a_run_in_half_precision(model, found, tmp_path):
    coarse = ll.load_model("affine-huginn-mini").to(torch.bfloat16)
    run = ll.record(coarse, [IDS], iterations=64, out=tmp_path / "run", progress=False)
    result = lyapunov_spectra(coarse, run, k=1, tokens=[2, 5], upstream=False)
    assert result.attrs["dtype"] == "float32"  # rounding hides the derivative
    assert (result["tail_rule"] == "settled").all()
    assert (result["rest_share"] > 0.8).all()
    few = found["exponents"].values[[2, 5], 0]
    np.testing.assert_allclose(result["exponents"][:, 0], few, rtol=0.1)


def test_figures_draw_what_the_result_holds(found):
    drawn = plots.lyapunov_figure(found, 4)
    marks = next(trace for trace in drawn.data if trace.name == "tail, ± 2 errors")
    np.testing.assert_allclose(marks.y, found["exponents"].sel(token=4))
    bars = next(trace for trace in drawn.data if trace.name == "share in the tail")
    assert list(bars.y) == found["sublayer"].values.tolist()
    unclear = found.copy()
    unclear["clear"] = ("token", np.arange(len(IDS)) > 2)
    tokens = plots.lyapunov_tokens_figure(unclear)
    near = next(trace for trace in tokens.data if trace.name == "settle, near a cut")
    assert (near.marker.symbol, len(near.x)) == ("circle-open", 3)
    two = found.assign_coords(prompt=("token", np.arange(len(IDS)) // 6))
    line = plots.lyapunov_tokens_figure(two).data[0]  # broken between the prompts
    assert np.flatnonzero(np.isnan(line.x)).tolist() == [6]
    assert np.isnan(line.y[6])
