import dataclasses

import pytest
import torch

from looplens.errors import InputError, LoopLensError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.thinking.cache import CacheStrategy, LoopedCache, caching

CFG = LoopedConfig(
    d_model=16, n_heads=2, d_mlp=16, d_vocab=10, n_ctx=16, n_prelude=1, n_core=2, n_coda=1
)


@pytest.fixture
def model() -> LoopedTransformer:
    torch.manual_seed(0)
    return LoopedTransformer(CFG).eval()


def entry(value: float, positions: int = 1) -> torch.Tensor:
    """Keys (or values) that say who wrote them: [batch, kv_head, pos, d_head]."""
    return torch.full((1, 2, positions, 8), float(value))


def write(model, cache, position, iteration, count=1, section="core", layer=0):
    """Let one layer extend the cache; return what it sees, one number a position."""
    attention = getattr(model, section)[layer].attn
    model.position_offset = position
    value = 100 * position + iteration
    with model.clock.at(iteration):
        k, v = cache.extend(attention, entry(value, count), entry(-value, count))
    assert torch.equal(k, -v)
    return k[0, 0, :, 0].tolist()


def filled(model, strategy, iterations=4, ran=(4, 4)):
    """Positions 0, 1, ... ran so many iterations each."""
    cache = LoopedCache(model, positions=8, iterations=iterations, strategy=strategy)
    for position, count in enumerate(ran):
        for t in range(1, count + 1):
            write(model, cache, position, t)
    return cache


def seen(model, strategy, ran=(4, 4), iterations=4):
    """What position len(ran) sees in each iteration."""
    cache = filled(model, strategy, iterations, ran)
    return [write(model, cache, len(ran), t) for t in range(1, iterations + 1)]


def test_full_keeps_every_iteration_apart(model):
    assert seen(model, "full") == [[t, 100 + t, 200 + t] for t in (1, 2, 3, 4)]


def test_last_and_first_iteration_stand_for_all(model):
    # The position itself is always seen in its own iteration.
    assert seen(model, "last") == [[4, 104, 200 + t] for t in (1, 2, 3, 4)]
    assert seen(model, "first") == [[1, 101, 200 + t] for t in (1, 2, 3, 4)]


def test_sharing_is_modulo_the_budget(model):
    # Slots are t mod 3: iteration 4 of a position takes the place of its iteration 1.
    assert seen(model, "shared:3") == [[s, 100 + s, 200 + t] for t, s in enumerate((4, 2, 3, 4), 1)]
    assert seen(model, "shared:1") == seen(model, "last")
    assert seen(model, "shared:9") == seen(model, "full")


def test_latest_stands_in_where_a_position_stopped(model):
    assert seen(model, "latest", ran=(2, 4)) == [
        [1, 101, 201],
        [2, 102, 202],
        [2, 103, 203],
        [2, 104, 204],
    ]
    assert seen(model, "latest") == seen(model, "full")
    shared = CacheStrategy(slots=3, missing="latest")
    assert [row[0] for row in seen(model, shared, ran=(1,))] == [1, 1, 1, 1]
    with pytest.raises(
        InputError, match=r"position 0 holds no keys of core layer 0 for iteration 3: it ran 2.*lat"
    ):
        seen(model, "full", ran=(2, 4))


def test_layers_and_sections_are_kept_apart(model):
    cache = LoopedCache(model, positions=4, iterations=2)
    write(model, cache, 0, 1, layer=0)
    write(model, cache, 0, 2, layer=1)
    write(model, cache, 0, 1, section="prelude")
    assert write(model, cache, 1, 2, section="prelude") == [1, 102]
    write(model, cache, 0, 1, section="coda")
    assert write(model, cache, 0, 2, section="coda") == [2]  # a later readout replaces the earlier
    assert write(model, cache, 1, 1, section="coda") == [2, 101]


def test_prompts_come_in_one_piece(model):
    cache = LoopedCache(model, positions=8, iterations=2)
    assert write(model, cache, 0, 1, count=3) == [1, 1, 1]
    assert write(model, cache, 3, 1) == [1, 1, 1, 301]


def test_memory_is_one_set_a_slot(model):
    one = filled(model, "last").nbytes
    assert filled(model, "full").nbytes == 4 * one
    assert filled(model, "shared:2").nbytes == 2 * one
    assert one == 2 * 8 * 2 * 8 * 4  # keys and values, positions, heads, d_head, bytes


def test_there_is_no_cache_without_the_iteration(model):
    cache = LoopedCache(model, positions=4, iterations=2)
    with pytest.raises(LoopLensError, match="core layer 0 ran while the loop clock stands still"):
        cache.extend(model.core[0].attn, entry(1), entry(1))
    write(model, cache, 0, 1)
    with pytest.raises(LoopLensError, match="core layer 0 ran twice in iteration 1 at position 0"):
        write(model, cache, 0, 1)
    with pytest.raises(InputError, match="made for 2 iterations, iteration 3 came"):
        write(model, cache, 0, 3)
    with pytest.raises(InputError, match="the cache holds 4 positions, position 5 came"):
        write(model, cache, 4, 1)
    with pytest.raises(InputError, match="belongs to another model"):
        cache.extend(LoopedTransformer(CFG).core[0].attn, entry(1), entry(1))


def test_layers_that_cannot_be_cached_are_refused(model):
    model.core[1] = torch.nn.Linear(16, 16)
    with pytest.raises(InputError, match="core layer 1 is a Linear, whose attention has no place"):
        LoopedCache(model, positions=4, iterations=2)


def test_the_model_is_left_as_it_came(model):
    cache = LoopedCache(model, positions=4, iterations=2)
    tokens = torch.tensor([[1, 2, 3]])
    before = model(tokens)
    with pytest.raises(InputError, match="the cache holds 4 positions"), caching(model, cache):
        model(torch.tensor([[1, 2, 3, 4, 5]]))
    with caching(model, cache):
        model.position_offset = 3
    assert model.position_offset == 0
    assert torch.equal(model(tokens), before)
    twice = caching(model, cache)
    with caching(model, cache), pytest.raises(InputError, match="already generating"), twice:
        pass


def test_strategies_by_name():
    for name in ("full", "latest", "last", "first", "shared:4"):
        assert str(CacheStrategy.parse(name)) == name
    for wrong in ("shared", "shared:0", "shared:x", "full:2", "lates"):
        with pytest.raises(InputError, match="unknown cache strategy"):
            CacheStrategy.parse(wrong)
    with pytest.raises(InputError, match="at least 1 slot"):
        dataclasses.replace(CacheStrategy(), slots=0)
