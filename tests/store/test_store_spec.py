from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from store_help import make_arrays, make_prompts, make_spec, write_run

from looplens.errors import InputError, SiteError
from looplens.prompts import Prompt
from looplens.store.format.reduction import Reduction


def test_sizes_are_exact():
    sizes = make_spec().nbytes()
    restarts, tokens, layers, iterations, d_model = 2, 21, 2, 4, 6
    assert sizes["loop/state"] == restarts * tokens * (iterations + 1) * d_model * 4
    assert sizes["states/resid_post"] == restarts * tokens * layers * iterations * d_model * 4
    assert sizes["states/k"] == restarts * tokens * layers * iterations * 2 * 3 * 4
    assert sizes["attention/2/pattern"] == restarts * layers * iterations * 4 * 7 * 7 * 4
    assert sizes["readout/topk_ids"] == restarts * tokens * iterations * 3 * 4
    assert make_spec(dtype="float16").nbytes()["loop/state"] * 2 == sizes["loop/state"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"sites": ("resid_pots",)},
            SiteError,
            r"no site family 'resid_pots'.*Did you mean",
        ),
        ({"sites": ("pattern",)}, SiteError, r"patterns are chosen with attention_prompts"),
        ({"sites": ("k", "k")}, SiteError, r"names a family twice"),
        ({"d_head": None}, InputError, r"sites q, k, v and z need n_heads and d_head"),
        (
            {"attention_prompts": (9,)},
            InputError,
            r"prompt 9, but the 4 prompts are counted",
        ),
        ({"iterations": 0}, InputError, r"iterations must be at least 1, but is 0"),
        ({"restart_seeds": (1,)}, InputError, r"each of the 2 restarts, but has 1"),
        ({"dtype": "float61"}, InputError, r"one of float32, float16, but is 'float61'. Did you"),
        ({"prompts": []}, InputError, r"at least one prompt"),
        ({"settings": {"f": print}}, InputError, r"must be values that JSON can hold, but"),
        ({"model": {"lr": float("nan")}}, InputError, r"must be values that JSON can hold, but"),
        ({"layers": (0, 2)}, InputError, r"layers names 2, but there are only 0 to 1"),
        ({"layers": (1, 0)}, InputError, r"layers must ascend, and name nothing twice.* 1, 0"),
        ({"kept_iterations": (0, 4)}, InputError, r"kept_iterations names 0, .* only 1 to 4"),
        ({"token_positions": [(0,)]}, InputError, r"one row for each of the 4 prompts, but has 1"),
        (
            {"token_positions": [(0,), (1,), (), ()]},
            InputError,
            r"token_positions\[1\] names 1, but there are only 0 to 0",
        ),
        ({"token_positions": [()] * 4}, InputError, r"keeps no token of any prompt"),
        ({"block_tokens": 0}, InputError, r"block_tokens must be at least 1, or None"),
        (
            {"reduction": Reduction(kind="given", basis=np.eye(7)[:2])},
            InputError,
            r"states of 7 dimensions, but those of this model have 6",
        ),
    ],
)
def test_a_spec_that_cannot_be_recorded_says_why(changes, kind, message):
    with pytest.raises(kind, match=message):
        make_spec(**changes)


def test_metadata_cannot_take_the_name_of_a_column():
    taken = Prompt(token_ids=(1,), text="a", token_texts=("a",), token_metadata={"target": (1.0,)})
    with pytest.raises(InputError, match=r"token_metadata cannot have a column 'target'"):
        make_spec(prompts=[*make_prompts(), taken])
    spaced = Prompt(token_ids=(1,), text="a", token_texts=("a",), metadata={"a/b": 1})
    with pytest.raises(InputError, match=r"named like Python variables, but one is 'a/b'"):
        make_spec(prompts=[*make_prompts(), spaced])


def test_keeping_all_by_name_is_keeping_all():
    named = make_spec(
        layers=[0, 1], kept_iterations=range(1, 5), token_positions=[range(n) for n in (5, 1, 7, 8)]
    )
    assert named.fingerprint() == make_spec().fingerprint()
    assert named.layout == make_spec().layout
    assert named.layout.state_iterations == (0, 1, 2, 3, 4)


def test_what_is_kept_is_all_that_is_stored(tmp_path):
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 3)))[0].T
    spec = make_spec(
        layers=(1,),
        kept_iterations=(2, 4),
        token_positions=[(0, 4), (), (1, 3, 6), (7,)],
        reduction=Reduction(kind="random", basis=basis, mean=np.arange(6), seed=3),
        block_tokens=4,
    )
    arrays = make_arrays(spec)
    assert {key: array.shape for key, array in arrays.items() if "readout" not in key} == {
        "loop/state": (2, 6, 2, 3),
        "loop/injected": (6, 3),
        "states/resid_post": (2, 6, 1, 2, 3),
        "states/k": (2, 6, 1, 2, 2, 3),  # heads are never reduced
        "discarded/state": (2, 6, 2),
        "discarded/resid_post": (2, 6, 1, 2),
        "reduction/basis": (3, 6),
        "reduction/mean": (6,),
        "attention/0/pattern": (2, 1, 2, 4, 5, 5),
        "attention/2/pattern": (2, 1, 2, 4, 7, 7),
    }
    # Any xarray reads it, with the true numbers of iterations and layers.
    tree = xr.open_datatree(write_run(tmp_path / "run", spec, arrays), engine="zarr").load()
    assert tree["states/layer"].values.tolist() == [1]
    for name in ("loop/iteration", "states/iteration", "readout/iteration", "attention/iteration"):
        assert tree[name].values.tolist() == [2, 4]
    np.testing.assert_array_equal(tree["reduction/basis"], basis.astype(np.float32))
    np.testing.assert_array_equal(tree["reduction/mean"], np.arange(6))
    for key in ("loop/state", "states/resid_post", "discarded/state", "discarded/resid_post"):
        np.testing.assert_array_equal(tree[key], arrays[key])
    assert tree["tokens/prompt"].values.tolist() == [0, 0, 2, 2, 2, 3]
    assert tree["tokens/position"].values.tolist() == [0, 4, 1, 3, 6, 7]
    assert tree["tokens/token_id"].values.tolist() == [0, 4, 1, 3, 6, 7]
    assert tree["prompts/n_tokens"].values.tolist() == [2, 0, 3, 1]
    assert tree["prompts/first_token"].values.tolist() == [0, 2, 2, 5]
    assert tree["prompts/length"].values.tolist() == [5, 1, 7, 8]


# Reductions


def test_a_reduction_says_how_much_it_leaves_out():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0].T
    reduction = Reduction(kind="given", basis=basis[:4], mean=rng.standard_normal(6))
    states = rng.standard_normal((5, 6))
    components, discarded = reduction.apply(states)
    centred = states - reduction.mean
    rest = np.square(centred @ basis[4:].T).sum(-1) / np.square(centred).sum(-1)
    np.testing.assert_allclose(discarded, rest, atol=1e-6)
    inside = reduction.reconstruct(components)
    np.testing.assert_allclose(reduction.apply(inside)[0], components, atol=1e-5)
    assert reduction.apply(inside)[1].max() < 1e-6
    assert reduction.apply(reduction.mean)[1] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pcs"}, r"one of random, pca, given, but 'pcs' was given.*Did you mean 'pca'"),
        ({"basis": np.ones((2, 6))}, r"must be orthonormal, but .* is off the identity by 6"),
        ({"basis": np.full((2, 6), np.nan)}, r"must be orthonormal"),
        ({"basis": np.eye(6)[:, :3]}, r"at most as many components.* has the shape \(6, 3\)"),
        ({"mean": np.ones(5)}, r"must be 6 finite numbers.* has the shape \(5,\)"),
        ({"mean": np.full(6, np.inf)}, r"and numbers that are not finite"),
    ],
)
def test_a_reduction_that_cannot_be_says_why(changes, message):
    with pytest.raises(InputError, match=message):
        Reduction(**{"kind": "given", "basis": np.eye(6)[:3], **changes})
