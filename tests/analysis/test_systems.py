import numpy as np
import pytest

from looplens.errors import InputError
from looplens.testing import KINDS, make_system


@pytest.mark.parametrize("kind", KINDS)
def test_a_system_is_its_seed(kind):
    first, again, other = (make_system(kind, iterations=32, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.states, again.states)
    assert not np.array_equal(first.states, other.states)
    assert first.states.shape == (33, 64)
    assert np.isfinite(first.period) == (first.truth == "orbit")


def test_noise_has_the_asked_size():
    clean, noisy = (make_system("orbit_rotation", snr_db=snr, seed=1) for snr in (np.inf, 20))
    spread = np.sqrt(((clean.states - clean.states.mean(0)) ** 2).sum(-1).mean())
    noise = np.sqrt(((noisy.states - clean.states) ** 2).sum(-1).mean())
    assert noise / spread == pytest.approx(0.1, rel=0.05)


def test_the_arc_keeps_its_norm():
    norms = np.linalg.norm(make_system("slider_arc", seed=2).states, axis=-1)
    np.testing.assert_allclose(norms, norms[0])


def test_unknown_kinds_and_sizes_are_named():
    with pytest.raises(InputError, match=r"Unknown kind of system 'orbit_cycl'.*'orbit_cycle'"):
        make_system("orbit_cycl")
    with pytest.raises(InputError, match=r"at least 8 iterations and 24 dimensions.*d_model=8"):
        make_system("orbit_cycle", d_model=8)
