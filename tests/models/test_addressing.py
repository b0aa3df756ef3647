import copy
import dataclasses

import pytest
import torch

from looplens.errors import InputError
from looplens.models import LoopCache, LoopedConfig, LoopedTransformer
from looplens.models.addressing import axes_of, caching_hooks
from looplens.models.passes import Passes

CFG = LoopedConfig(
    d_model=16,
    n_heads=4,
    n_kv_heads=2,
    d_mlp=24,
    d_vocab=10,
    n_ctx=16,
    n_prelude=2,
    n_core=3,
    n_coda=1,
)
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
T = 6


def make(**changes) -> LoopedTransformer:
    torch.manual_seed(0)
    return LoopedTransformer(dataclasses.replace(CFG, **changes)).eval()


def cached(names_filter=None, tokens=TOKENS, **options) -> LoopCache:
    model, cache = make(), LoopCache()
    hooks = caching_hooks(model, cache, names_filter, None, **options)
    with torch.no_grad():
        model.run_with_hooks(tokens, iterations=T, fwd_hooks=hooks)
    return cache


@pytest.fixture(scope="module")
def full() -> LoopCache:
    return cached()


# ---------------------------------------------------------------- TransformerLens' shorthand


@pytest.mark.parametrize(
    ("key", "site", "shape"),
    [
        (("resid_post", 2), "core.2.hook_resid_post", (2, 5, 16)),
        (("pattern", 1), "core.1.attn.hook_pattern", (2, 4, 5, 5)),
        (("attn", 1), "core.1.attn.hook_pattern", (2, 4, 5, 5)),
        (("q", 0), "core.0.attn.hook_q", (2, 5, 4, 4)),
        (("k", -1), "core.2.attn.hook_k", (2, 5, 2, 4)),
        ("v1", "core.1.attn.hook_v", (2, 5, 2, 4)),
        (("post", 0), "core.0.mlp.hook_post", (2, 5, 24)),
        (("mlp_out", -3), "core.0.hook_mlp_out", (2, 5, 16)),
        ("state", "hook_state", (2, 5, 16)),
        (("resid_post", 1, "core"), "core.1.hook_resid_post", (2, 5, 16)),
    ],
)
def test_shorthand_means_a_site_and_its_index_is_the_pass(full, key, site, shape):
    assert full[key].shape == (T, *shape)
    for t in (1, 4, T):
        assert torch.equal(full[key][t], full[f"{site}@{t}"])
    assert torch.equal(full[site], full[key])
    assert key in full
    assert full.iterations(key) == list(range(1, T + 1))


def test_layers_outside_the_loop_fire_once(full):
    assert full["resid_post", 0, "prelude"].shape == (2, 5, 16)
    assert full["resid_post", -1, "prelude"] is full["prelude.1.hook_resid_post"]
    assert full["embed"] is full["hook_embed"]
    assert full.iterations("embed") == []
    assert full.stack("resid_post", "prelude").shape == (2, 2, 5, 16)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("resid_pos", 1), r"is 'core\.1\.hook_resid_pos'\) is not in the cache\. Did you mean"),
        (("resid_post", 7), r"core\.7\.hook_resid_post.*Did you mean 'core\.\d\.hook_resid_post'"),
        (("resid_post", 1, "preludes"), "not in the cache"),
        ("core.0.hook_resid_post@9", r"pass '9' of 'core\.0\.hook_resid_post' \(kept: 1\.\.6\)"),
        ("core.0.hook_resid_post@0", r"pass '0'"),
        ("hook_embed@1", "none: it is outside the loop"),
        (3, "expected a site"),
    ],
)
def test_what_is_not_there_says_what_is(full, key, message):
    with pytest.raises(KeyError, match=message):
        full[key]
    assert key not in full


# ---------------------------------------------------------------- passes count from 1


def test_pass_numbers_are_those_of_addresses():
    passes = Passes(torch.arange(4.0)[:, None].expand(4, 3), [4, 5, 6, 7])
    assert passes[4][0] == 0
    assert passes[-1][0] == 3
    assert passes[6, 1] == 2
    assert passes[:, 0].tolist() == [0, 1, 2, 3]
    assert passes[5:7].iterations == (5, 6)
    assert passes[5:][7][0] == 3  # numbers travel with a slice
    assert passes[[7, 4]][:, 0].tolist() == [3, 0]
    assert passes[::2].iterations == (5, 7)  # every second pass from pass 1, as '@::2' says
    assert type(passes.mean(-1)) is torch.Tensor
    assert passes.as_tensor()[0, 0] == 0
    assert [row[0].item() for row in passes] == [0, 1, 2, 3]
    assert copy.deepcopy(passes).iterations == passes.iterations
    assert repr(passes).startswith("Passes 4..7 of tensor(")


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (0, IndexError, "counted from 1, so there is no pass 0"),
        (slice(0, 3), IndexError, "no pass 0"),
        (3, IndexError, r"pass 3 was not kept \(kept: 4\.\.6\)"),
        (-4, IndexError, r"pass -4 was not kept"),
        (slice(None, None, -1), IndexError, "step between passes"),
        (None, TypeError, "expected the number of a pass"),
        (torch.tensor([True, False, True]), TypeError, "as_tensor"),
    ],
)
def test_a_pass_that_is_none_is_an_error(key, error, message):
    with pytest.raises(error, match=message):
        Passes(torch.zeros(3, 2), [4, 5, 6])[key]


def test_passes_cannot_be_written_to(full):
    with pytest.raises(TypeError, match="cannot be written to"):
        full["resid_post", 0][1] = 0.0


# ---------------------------------------------------------------- the whole loop


def test_stack_and_virtual_depth_lay_out_the_loop(full):
    stacked = full.stack("resid_post")
    assert stacked.shape == (T, 3, 2, 5, 16)
    assert torch.equal(stacked[4, 2], full["core.2.hook_resid_post@4"])
    assert full.stack("pattern").shape == (T, 3, 2, 4, 5, 5)
    deep, labels = full.virtual_depth()
    v = 3 * (4 - 1) + 2
    assert torch.equal(deep[v], full["core.2.hook_resid_post@4"])
    assert labels[v] == "core.2.hook_resid_post@4"
    assert len(deep) == len(labels) == 3 * T


def test_accumulated_resid_is_the_stream_at_every_depth(full):
    stream, labels = full.accumulated_resid(incl_mid=True, return_labels=True)
    assert labels[:4] == ["0_pre", "0_mid", "1_pre", "1_mid"]
    assert labels[-1] == "final_post"
    assert len(labels) == len(stream) == 2 * 3 * T + 1
    assert torch.equal(stream[labels.index("7_mid")], full["core.1.hook_resid_mid@3"])
    assert torch.equal(stream[-1], full["resid_post", -1][-1])
    assert torch.equal(full.accumulated_resid()[:-1], full.virtual_depth("resid_pre")[0])


def test_stacking_what_was_partly_kept_is_an_error():
    cache = cached(["core.0.hook_resid_post@4:", "core.1.hook_resid_post@2:"])
    with pytest.raises(InputError, match=r"different passes: 2\.\.6; 4\.\.6"):
        cache.stack("resid_post")
    with pytest.raises(KeyError, match="not in the cache"):
        cache.stack("resid_mid")
    with pytest.raises(InputError, match=r"of the layers \[1\] of the core only"):
        cached("core.1.hook_resid_post").stack("resid_post")
    with pytest.raises(InputError, match=r"every pass from the first.*kept in 4\.\.6"):
        cached("core.*.hook_resid_post@4:").virtual_depth()


def test_a_model_without_a_core_has_one_stack_of_layers():
    cache = LoopCache()
    for layer, t in ((0, 1), (0, 2), (1, 1), (1, 2)):
        cache.keep(f"layers.{layer}.hook_state", t, torch.full((1, 3, 2), 10.0 * layer + t))
    assert cache["state", 1][2][0, 0, 0] == 12
    assert cache["state", -1, "layers"][1][0, 0, 0] == 11
    assert cache.stack("state").shape == (2, 2, 1, 3, 2)
    assert cache.virtual_depth("state")[1][1] == "layers.1.hook_state@1"


def test_keys_are_single_activations_and_sites_are_names():
    cache = cached(["core.0.hook_resid_post@2:4", "hook_embed"])
    assert set(cache) == {"core.0.hook_resid_post@2", "core.0.hook_resid_post@3", "hook_embed"}
    assert set(cache.sites) == {"core.0.hook_resid_post", "hook_embed"}
    assert all(torch.equal(cache[key], value) for key, value in cache.items())
    assert "core.0.hook_resid_post@4" not in cache


# ---------------------------------------------------------------- batch, positions, device


def test_remove_batch_dim_and_to_change_the_cache_itself(full):
    single = cached("core.**", TOKENS[:1])
    assert single.remove_batch_dim() is single
    assert single["pattern", 1][2].shape == (4, 5, 5)
    assert single["q", 1].shape == (T, 5, 4, 4)
    assert not single.has_batch_dim
    assert single.remove_batch_dim()["q", 1].shape == (T, 5, 4, 4)  # once is enough
    assert single.to("meta")["q", 1].device.type == "meta"
    with pytest.raises(InputError, match="batch of one sequence, but this one has 2"):
        full.remove_batch_dim()


@pytest.mark.parametrize(
    ("pos_slice", "kept"),
    [(-1, ()), ((1, 3), (2,)), ([0, 4], (2,)), (slice(2, None), (3,)), (None, (5,))],
)
def test_positions_can_be_chosen_as_in_transformerlens(pos_slice, kept):
    cache = cached("core.0.**", pos_slice=pos_slice)
    assert cache["resid_post", 0][1].shape == (2, *kept, 16)
    assert cache["z", 0][1].shape == (2, *kept, 4, 4)
    assert cache["pattern", 0][1].shape == (2, 4, *kept, 5)


def test_run_with_cache_takes_transformerlens_keywords():
    model = make()
    logits, cache = model.run_with_cache(
        TOKENS[:1], iterations=T, remove_batch_dim=True, pos_slice=-1, names_filter="core.1.**"
    )
    assert logits.shape == (1, 5, 10)
    assert cache["resid_post", 1][T].shape == (16,)
    assert cache["pattern", 1].shape == (T, 4, 5)


def test_axes_follow_the_name_of_the_hook():
    assert axes_of("core.0.attn.hook_z").head == 2
    assert axes_of("core.0.attn.hook_pattern").pos == 2
    assert axes_of("core.0.hook_resid_post").head is None
