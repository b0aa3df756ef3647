"""What float32 and one pass must not cost: digits of states far from zero, very large, or tiny."""

import numpy as np
import pytest

import looplens
from looplens.analysis import convergence
from looplens.analysis.algebra.compiled import compiled
from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter

TOKENS, ITERATIONS, RESTARTS = 16, 20, 2


def far(states, size, spread):
    offset = np.random.default_rng(9).normal(size=states.shape[-1])
    return size * offset / np.linalg.norm(offset) + spread * states


def one_huge(states):
    states = states.copy()
    states[0, 3] *= 1e20
    return states


CASES = {
    "huge": lambda states: states * 1e20,
    "huge, with squares beyond float32 and sums near its end": lambda states: states * 1e34,
    "tiny": lambda states: states * 1e-25,
    "one huge": one_huge,
    "small steps far away": lambda states: far(states, 1e4, 1e-3),
    "far away": lambda states: far(states, 1e3, 1.0),
}


def recorded(path, change, d_model):
    """Write a run of decays to limits that spread more in some directions; return its states."""
    rng = np.random.default_rng(1)
    t = np.arange(ITERATIONS + 1)[:, None]
    limits = rng.normal(size=(TOKENS, 1, d_model)) * np.linspace(1, 4, d_model) ** 2
    starts = rng.normal(size=(RESTARTS, TOKENS, 1, d_model))
    rates = np.linspace(0.4, 0.95, TOKENS)[:, None, None]
    states = change(limits + starts * rates**t).astype(np.float32)
    spec = RunSpec(
        prompts=[Prompt(token_ids=(0,) * TOKENS, text="x", token_texts=("x",) * TOKENS)],
        iterations=ITERATIONS,
        n_layers=1,
        d_model=d_model,
        restarts=RESTARTS,
        restart_seeds=tuple(range(RESTARTS)),
        initial_state="noise",
        block_tokens=TOKENS,
        model={"name": "x", "source": "x", "family": "x", "config": {}},
    )
    with RunWriter(path, spec) as writer:
        after = states[:, :, None, 1:]
        writer.write_block(0, {"loop/state": states, "states/resid_post": after})
    return states.astype(np.float64)


@pytest.mark.parametrize("d_model", [8, 64, 256])  # products in float32 beyond 128
@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_components_of_a_run_are_those_of_a_naive_decomposition(tmp_path, change, d_model):
    states = recorded(tmp_path / "run", change, d_model)
    found = looplens.open_run(tmp_path / "run").analyze("pca")["pca"]
    sample = states[:, :, 1:].reshape(-1, d_model)
    mean = sample.mean(0)
    centred = sample - mean
    size = np.abs(centred).max()
    _, singular, rows = np.linalg.svd(centred / size, full_matrices=False)
    shares = (singular**2 / (singular**2).sum())[:6]
    signs = np.sign((rows[:6] * found["components"].values).sum(1))
    expected = (states - mean) @ (signs[:, None] * rows[:6]).T
    spread = np.sqrt((expected[:, :, 1:] ** 2).mean())
    projection = found["projection"].values, found["layer_projection"].values[:, :, 0]
    for name, places, start in zip(("", "layer_"), projection, (0, 1), strict=True):
        ratio = np.ravel(found[f"{name}explained_variance_ratio"].values)
        np.testing.assert_allclose(ratio, shares, rtol=1e-5, atol=1e-12)
        error = (places - expected)[:, :, start:] / spread
        assert np.sqrt((error**2).mean()) < 1e-5
    variance = found["variance"].values.sum((0, 1))
    np.testing.assert_allclose(variance[-1] / size**2, (singular**2).sum(), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 2.0**53, 2.0**-66])
def test_the_distance_to_the_limit_has_no_floor_of_its_own(dtype, offset, scale):
    rng = np.random.default_rng(2)
    t = np.arange(65)[:, None]
    # A slow orbit about the limit: the last state is far from the limit, others pass close by.
    turn = np.cos(2 * np.pi * t / 15.3) * (0.98**t)
    states = offset + rng.normal(size=(5, 1, 32)) + turn * rng.normal(size=(5, 1, 32))
    # States that are the limit but for a little, and a last one far away.
    settled = rng.normal(size=(5, 1, 32)) * np.ones((65, 1))
    settled[:, -1] += 100 * rng.normal(size=(5, 32))
    settled[:, 3] = settled[:, -17:].mean(1) + 1e-4
    states = (scale * np.concatenate([states, offset + settled])).astype(dtype)
    exact = states.astype(np.float64) / scale
    limit = exact[:, -16:].mean(1, keepdims=True)
    size = np.linalg.norm(limit, axis=-1)
    expected = np.linalg.norm(exact - limit, axis=-1) / size
    motion = np.linalg.norm(exact - exact[:, -1:], axis=-1).max(1)[:, None] / size
    found = convergence(states).distance_to_limit
    error = np.abs(found - expected[:, 1:])
    assert (error <= 10 * np.finfo(dtype).eps * (motion + expected[:, 1:])).all()
    assert expected[5:, 3].max() < 1e-2 * motion[5:].min()


def test_functions_whose_code_can_be_kept_nowhere_are_compiled_all_the_same():
    numba = pytest.importorskip("numba")
    names = {}
    exec("def total(x):\n    s = 0.0\n    for v in x:\n        s += v\n    return s\n", names)
    with pytest.raises(RuntimeError, match="cannot cache"):  # no file, so no place beside it
        numba.njit(cache=True)(names["total"])
    found = compiled(names["total"])
    assert found(np.arange(5.0)) == 10
    assert found.signatures  # of machine code
