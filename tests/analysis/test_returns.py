"""Recurrence, change points and DMD on systems in closed form."""

import numpy as np
import pytest
from closed_form_paths import ALL, PERIOD, T, circle, embedded
from hypothesis import given, settings
from hypothesis import strategies as st

from looplens import analysis
from looplens.errors import InputError

pytestmark = pytest.mark.filterwarnings("error")


class TestRecurrence:
    def test_a_circle_closes_and_a_line_does_not(self):
        found = analysis.recurrence(ALL[:, 1:])
        np.testing.assert_allclose(found.closest_return[[1, 3]], 1, rtol=1e-6)
        assert (found.closest_return[[0, 2]] < 0.01).all()
        assert 0.1 < found.closest_return[4] < 0.5  # a walk of 32 steps: about 1 / sqrt(32)
        assert found.recurrence_rate[1] == 0
        assert found.determinism[0] == 1
        np.testing.assert_allclose(found.frequency[[0, 2]], [1 / PERIOD, 0.5], rtol=5e-3)
        assert (found.frequency_share[[0, 2]] > 0.95).all()
        assert np.isnan(found.frequency[[1, 3]]).all()

    def test_the_rate_counts_pairs(self):
        states = analysis.recurrence_matrix(ALL[4, 1:])[-32:, -32:]
        apart = [states[i, j] for i in range(32) for j in range(i - 3)]
        found = analysis.recurrence(ALL[4, 1:], radius=0.5)
        np.testing.assert_allclose(
            found.recurrence_rate, np.mean(np.array(apart) < 0.5 * states.max()), rtol=1e-12
        )
        np.testing.assert_allclose(found.extent * np.linalg.norm(ALL[4, -1]), states.max())

    def test_determinism_is_the_share_on_diagonal_lines(self):
        places = np.random.default_rng(5).integers(0, 2, size=32).astype(float)
        states = embedded(np.tile(places, 2)[:, None])  # the window is the last half
        recurs = analysis.recurrence_matrix(states[32:]) < 0.1
        pairs, recurring, lined = 0, 0, 0
        for lag in range(4, 32):
            line = "".join("x" if near else " " for near in np.diagonal(recurs, lag))
            pairs += len(line)
            recurring += line.count("x")
            lined += sum(len(part) for part in line.split() if len(part) >= 3)
        found = analysis.recurrence(states, radius=0.5)
        np.testing.assert_allclose(found.recurrence_rate, recurring / pairs)
        np.testing.assert_allclose(found.determinism, lined / recurring)

    @pytest.mark.parametrize("dwell", [1, 2, 3, 5])
    def test_a_state_that_dwells_in_two_places_in_turn_is_not_at_rest(self, dwell):
        places = (np.arange(64) // dwell % 2).astype(float)
        found = analysis.recurrence(embedded(places[:, None]).astype(np.float32))
        assert found.closest_return < 1e-3
        assert found.frequency == pytest.approx(1 / (2 * dwell), rel=0.05)

    def test_the_share_of_a_frequency_is_that_of_its_sine(self):
        time = np.arange(64)
        waves = 2.0 * np.sin(2 * np.pi * time / 8), np.sin(2 * np.pi * time / 3.2)
        frequency, share = analysis.dominant_frequency(np.stack(waves, axis=1))
        assert frequency == pytest.approx(1 / 8, abs=1e-3)
        assert share == pytest.approx(4 / 5, abs=0.02)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(st.floats(2.1, 20))
    def test_frequencies_are_found_beside_a_drift(self, period):
        states = embedded(np.concatenate([circle(period), 0.05 * T], axis=1))
        frequency, share = analysis.dominant_frequency(states)
        assert abs(frequency - 1 / period) < 0.004
        assert share > 0.85

    def test_a_state_of_exactly_zero_before_the_window_is_no_overflow(self):
        rng = np.random.default_rng(0)
        states = (rng.normal(size=16) + 0.01 * rng.normal(size=(50, 40, 16))).astype(np.float32)
        whole = analysis.recurrence(states).closest_return
        states[:, 5] = 0
        found = analysis.recurrence(states)
        np.testing.assert_allclose(found.closest_return, whole, rtol=1e-4)

    def test_what_is_not_finite_is_unknown_and_spoils_nothing_else(self):
        states = ALL[:3, 1:].copy()
        states[1, 4, 2] = np.inf
        distance = analysis.recurrence_matrix(states)
        assert np.isnan(distance[1, 4]).all()
        assert np.isnan(distance).sum() == 2 * 64 - 1
        frequency, share = analysis.dominant_frequency(states)
        assert np.isnan([frequency[1], share[1]]).all()
        np.testing.assert_allclose(frequency[[0, 2]], [1 / PERIOD, 0.5], rtol=5e-3)
        assert analysis.dominant_frequency(states[:0])[0].shape == (0,)

    def test_a_settled_token_has_no_recurrence(self):
        found = analysis.recurrence(embedded(0.3**T).astype(np.float32))
        assert np.isnan(found.closest_return)
        with pytest.raises(InputError, match="at least 16 states; got 8"):
            analysis.recurrence(ALL[0, :8])
        with pytest.raises(InputError, match="between 0 and 1; got 2"):
            analysis.recurrence(ALL[0], radius=2)


class TestChangePoints:
    iteration = np.arange(1, 65)

    def test_pieces_of_known_curves(self):
        steady = 0.8**self.iteration
        late = np.where(
            self.iteration < 25, 0.9**self.iteration, 0.9**24 * 0.6 ** (self.iteration - 24)
        )
        jump = np.where(self.iteration < 30, 1.0, 3.0)
        noise = np.exp(0.1 * np.random.default_rng(0).normal(size=(3, 64)))
        for curves in (np.stack([steady, late, jump]), np.stack([steady, late, jump]) * noise):
            found = analysis.change_points(curves)
            assert found.n_changes.tolist() == [0, 1, 1]
            np.testing.assert_allclose(found.change_iteration[1:, 0], [25, 30], atol=1)
            np.testing.assert_allclose(found.piece_rate[0, 0], 0.8, atol=0.01)
            np.testing.assert_allclose(found.piece_rate[1, :2], [0.9, 0.6], atol=0.02)
            assert np.isnan(found.piece_rate[0, 1:]).all()

    def test_the_cut_is_the_best_there_is(self):
        logs = np.cumsum(np.random.default_rng(3).normal(size=24))
        found = analysis.change_points(np.exp(np.concatenate([[0.0], logs])), penalty=0.0)

        def cost(start, stop):
            time = np.arange(start, stop)
            return np.square(
                logs[start:stop] - np.polyval(np.polyfit(time, logs[start:stop], 1), time)
            ).sum()

        def best(start, pieces):
            if pieces == 1:
                return cost(start, 24)
            return min(
                cost(start, stop) + best(stop, pieces - 1)
                for stop in range(start + 5, 24 - 5 * (pieces - 1) + 1)
            )

        pieces = int(found.n_changes) + 1
        assert pieces == 4  # without a penalty, as many as fit
        np.testing.assert_allclose(found.noise, np.sqrt(best(0, 4) / 24), rtol=1e-9)

    def test_noise_has_no_change_and_rounding_is_not_cut(self):
        rng = np.random.default_rng(0)
        noise = np.exp(0.2 * rng.normal(size=(200, 64)))
        assert (analysis.change_points(noise).n_changes > 0).mean() < 0.01
        floor = np.maximum(0.5**self.iteration, 1e-6)
        assert analysis.change_points(floor).n_changes == 1
        assert analysis.change_points(floor, signal_end=20).n_changes == 0
        assert np.isnan(analysis.change_points(floor, signal_end=4).n_changes)
        assert np.isnan(analysis.change_points(np.zeros(64)).n_changes)

    def test_long_records_are_thinned(self):
        time = np.arange(1, 1025)
        curve = np.where(time < 500, 0.99**time, 0.99**499 * 0.999 ** (time - 499))
        found = analysis.change_points(curve)
        assert abs(found.change_iteration[0] - 500) <= 4
        np.testing.assert_allclose(found.piece_rate[:2], [0.99, 0.999], atol=1e-4)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="penalty must not be negative"):
            analysis.change_points(np.ones(20), penalty=-1)
        with pytest.raises(InputError, match=r"must have the shape \(\) of the trajectories"):
            analysis.change_points(np.ones(20), signal_end=[3, 4])


def linear(modulus, turn, real, steps=40):
    """A path of a linear map with a pair modulus exp(+-i turn) and a real eigenvalue."""
    matrix = np.zeros((3, 3))
    matrix[:2, :2] = modulus * np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    matrix[2, 2] = real
    path = [np.ones(3)]
    for _ in range(steps):
        path.append(matrix @ path[-1])
    return embedded(np.array(path), offset=5.0)


class TestDMD:
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(st.floats(0.85, 1.0), st.floats(0.3, 2.8), st.floats(0.8, 0.99))
    def test_known_multipliers_are_found(self, modulus, turn, real):
        found = analysis.dmd(linear(modulus, turn, real))
        expected = [modulus * np.exp(1j * turn), modulus * np.exp(-1j * turn), real]
        assert found.rank == 3
        np.testing.assert_allclose(
            np.sort_complex(found.eigenvalues), np.sort_complex(expected), atol=1e-4
        )
        assert found.residual < 1e-4
        # The pair shares a plane, in which both go round with half of the size.
        steps = np.diff(linear(modulus, turn, real)[int(found.first) : int(found.last)], axis=0)
        total = np.square(steps).sum(1).mean()
        pair = np.argmax(np.abs(found.eigenvalues.imag) > 1e-6)
        single = np.argmin(np.abs(found.eigenvalues.imag))
        size = 2 * found.amplitude[pair] ** 2 + found.amplitude[single] ** 2
        np.testing.assert_allclose(size, total, rtol=1e-3)

    @pytest.mark.parametrize("rank", [3, None, 0.99])
    @pytest.mark.parametrize("shape", ["tall", "wide"])
    def test_it_agrees_with_pydmd(self, rank, shape):
        pydmd = pytest.importorskip("pydmd")
        states = linear(0.95, 0.6, 0.9)
        states = states + 0.01 * np.random.default_rng(0).normal(size=states.shape)
        states = states[:12] if shape == "tall" else states
        found = analysis.dmd(states, rank=rank, on="states", whole=True)
        other = pydmd.DMD(svd_rank=0 if rank is None else rank, exact=True).fit(states.T)
        own = found.eigenvalues[: int(found.rank)]
        np.testing.assert_allclose(np.sort_complex(own), np.sort_complex(other.eigs), atol=1e-6)

    def test_a_rank_of_numpy_is_what_it_is(self):
        states = linear(0.95, 0.6, 0.9)
        states = states + 0.01 * np.random.default_rng(0).normal(size=states.shape)
        for rank, other in ((np.int64(2), 2), (np.float32(0.5), 0.5)):
            assert analysis.dmd(states, rank=rank).rank == analysis.dmd(states, rank=other).rank
        assert analysis.dmd(states, rank=2).rank == 2

    @pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
    def test_the_scale_is_that_of_the_sizes_alone(self, scale):
        states = linear(0.95, 0.6, 0.9)
        one, other = analysis.dmd(states), analysis.dmd(scale * states)
        np.testing.assert_allclose(other.eigenvalues, one.eigenvalues, atol=1e-6)
        assert other.eigenvalues[0].imag > 0  # of a pair the upper one comes first
        np.testing.assert_allclose(other.amplitude / scale, one.amplitude, rtol=1e-4)

    def test_a_settled_token_is_fitted_before_the_floor(self):
        states = linear(0.5, 1.0, 0.3, steps=64)
        states = states + 1e-9 * np.random.default_rng(0).normal(size=states.shape)
        found = analysis.dmd(states, rounding=1e-9)
        assert found.last < 40
        np.testing.assert_allclose(np.abs(found.eigenvalues[0]), 0.5, rtol=0.02)
        assert np.isnan(analysis.dmd(np.ones((40, 4))).rank)
        for on in ("steps", "states"):
            assert np.isnan(analysis.dmd(np.zeros((40, 4)), on=on, whole=True).rank)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="at least 7 states; got 4"):
            analysis.dmd(np.ones((4, 3)))
        with pytest.raises(InputError, match=r"a share between 0 and 1, or None; got 1\.5"):
            analysis.dmd(ALL[0], rank=1.5)
        with pytest.raises(InputError, match="on must be 'steps' or 'states'"):
            analysis.dmd(ALL[0], on="tokens")
