"""Runs that keep some layers, iterations and tokens, or fewer dimensions of their states."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from store_help import make_arrays, make_spec, write_run

from looplens.errors import AnalysisError, InputError
from looplens.store import open_stored
from looplens.store.format.reduction import Reduction


@pytest.fixture
def kept(tmp_path, small_chunks):
    """Layers 0 and 2 of 3, iterations 2 and 4 of 4, the last tokens of each prompt."""
    spec = make_spec(
        n_layers=3,
        layers=(0, 2),
        kept_iterations=(2, 4),
        token_positions=[(3, 4), (), (0, 6), range(8)],
    )
    arrays = make_arrays(spec)
    return open_stored(write_run(tmp_path / "run", spec, arrays)), arrays


def test_layers_and_iterations_keep_their_numbers(kept):
    run, arrays = kept
    assert (run.n_layers, run.recorded_layers, run.layers_index(2)) == (3, (0, 2), 1)
    assert (run.iterations, run.kept_iterations, run.all_iterations) == (4, (2, 4), False)
    assert run.state().coords["iteration"].values.tolist() == [2, 4]
    np.testing.assert_array_equal(run.state(), arrays["loop/state"])
    sites = arrays["states/resid_post"]
    for layer, place in ((0, [0]), (2, [1]), (-1, [1]), (slice(1, None), [1]), (None, [0, 1])):
        site = run.site(layer=layer, tokens=5)
        np.testing.assert_array_equal(site, sites[:, 5, place].squeeze(1 if len(place) == 1 and
                                      not isinstance(layer, slice) else ()))  # fmt: skip
        assert np.atleast_1d(site.coords["layer"]).tolist() == [(0, 2)[i] for i in place]
    assert run.attention(2, layer=2).coords["iteration"].values.tolist() == [2, 4]
    assert run.attention(2).sizes["query"] == 7  # maps are of all tokens of the prompt
    for layer, message in (
        (1, r"Layer 1 is not in this run, which has the layers 0, 2"),
        (3, r"There is no layer 3: this run has 3, counted 0 to 2"),
    ):
        with pytest.raises(InputError, match=message):
            run.site(layer=layer)
        with pytest.raises(InputError, match=message):
            run.attention(0, layer=layer)
    assert "kept only  layers 0, 2; 2 of 4 iterations; some tokens of each prompt" in repr(run)


def test_tokens_that_are_kept_say_where_they_were(kept):
    run, _ = kept
    assert run.n_tokens == 12
    assert run.prompts["n_tokens"].values.tolist() == [2, 0, 2, 8]
    assert run.prompts["length"].values.tolist() == [5, 1, 7, 8]
    assert [run.token_range(i) for i in range(4)] == [
        slice(0, 2), slice(2, 2), slice(2, 4), slice(4, 12)
    ]  # fmt: skip
    assert run.tokens["position"].values[:4].tolist() == [3, 4, 0, 6]
    assert run.tokens["text"].values[:4].tolist() == [" t3", " t4", " t0", " t6"]


def test_reduced_states_come_with_their_basis_and_what_it_discards(tmp_path, small_chunks):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0][:3].astype(np.float32)
    reduction = Reduction(kind="random", basis=basis, mean=np.arange(6.0), seed=7, source="here")
    spec = make_spec(reduction=reduction)
    arrays = make_arrays(spec)
    arrays |= {"reduction/basis": reduction.basis, "reduction/mean": reduction.mean}
    columns = {k: a for k, a in arrays.items() if not k.startswith("reduction/")}
    run = open_stored(write_run(tmp_path / "run", spec, columns))
    assert (run.d_model, run.width, run.is_reduced) == (6, 3, True)
    assert run.state().dims == ("restart", "token", "iteration", "component")
    assert run.site("k").dims[-1] == "d_head"
    found = run.reduction
    np.testing.assert_array_equal(found.basis, basis)
    np.testing.assert_array_equal(found.mean, np.arange(6))
    assert (found.kind, found.seed, found.source) == ("random", 7, "here")
    state = run.discarded(tokens=[3, 20])
    assert state.dims == ("restart", "token", "iteration")
    assert state.coords["iteration"].values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(state, arrays["discarded/state"][:, [3, 20]])
    site = run.discarded("resid_post", restart=0, layer=1)
    np.testing.assert_array_equal(site, arrays["discarded/resid_post"][0, :, 1])
    with pytest.raises(AnalysisError, match=r"discarded of 'k'; it does of: state, resid_post"):
        run.discarded("k")
    tree = xr.open_datatree(tmp_path / "run", engine="zarr")
    xr.testing.assert_equal(tree["discarded"].to_dataset(), run.tree["discarded"].to_dataset())
    np.testing.assert_array_equal(tree["reduction/basis"], basis)


def test_a_run_of_everything_says_so(pristine):
    run = open_stored(pristine.path)
    assert (run.recorded_layers, run.kept_iterations) == ((0, 1), (1, 2, 3, 4))
    assert (run.all_iterations, run.is_reduced, run.width, run.reduction) == (True, False, 6, None)
    assert run.committed_tokens.all()
    with pytest.raises(AnalysisError, match="its states are not reduced"):
        run.discarded()
