import itertools
import json

import numpy as np
import pytest
import torch
from intervening import OTHER, TOKENS, T, make, run

import looplens as ll
from looplens.errors import InputError, SiteError
from looplens.recording import Intervention, applied, check_interventions, hooks_for
from looplens.thinking.generate import generate


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def clean(model):
    return run(model)


# ---------------------------------------------------------------- what is changed, and what is not


@pytest.mark.parametrize(
    "site",
    [
        "core.1.hook_resid_post",
        "core.0.attn.hook_z",
        "core.0.attn.hook_pattern",
        "core.1.mlp.hook_post",
        "hook_state",
    ],
)
def test_the_same_value_changes_nothing(model, clean, site):
    logits, cache = clean
    same = Intervention.replace(f"{site}@3", cache[f"{site}@3"], tokens=[1, 4])
    assert torch.equal(run(model, same)[0], logits)
    assert torch.equal(run(model, Intervention.add(f"{site}@2:", 0.0))[0], logits)
    assert torch.equal(run(model, Intervention.clamp(f"{site}@2:", cache))[0], logits)


@pytest.mark.parametrize(("address", "last"), [("@3", 3), ("@3:", T), ("@3:5", 4), ("@-4", 3)])
def test_a_patch_changes_its_passes_and_what_follows_from_them(model, clean, address, last):
    site, token = "core.0.hook_resid_post", 2
    patch = Intervention.add(f"{site}{address}", 1.0, tokens=token)
    _, before = clean
    _, after = run(model, patch)
    for name, t in itertools.product(
        (site, "core.1.hook_resid_post", "hook_state"), range(1, T + 1)
    ):
        change = (after[f"{name}@{t}"] - before[f"{name}@{t}"]).abs().amax(-1)  # [batch, pos]
        assert (change[:, :token] == 0).all()  # earlier tokens never see it
        assert (change[:, token] > 1e-4).all() == (t >= 3)
        assert (change[:, token:] == 0).all() == (t < 3)  # nor do earlier passes
    shift = after[f"{site}@3"] - before[f"{site}@3"]
    torch.testing.assert_close(shift[:, token], torch.ones(2, 32))
    assert (shift[:, token + 1 :] == 0).all()  # the site itself changes at that token alone
    repeat = (after[f"{site}@4"][:, token] - before[f"{site}@4"][:, token]).mean()
    assert (last > 3) == bool(repeat > 0.5)


def test_values_take_the_shape_of_what_they_stand_for(model, clean):
    _, cache = clean
    site, full = "core.1.hook_resid_post@2", cache["core.1.hook_resid_post@2"]

    def held(value, **where):
        return run(model, Intervention.replace(site, value, **where))[1][site]

    row = torch.arange(32.0)
    assert torch.equal(held(row, tokens=3)[:, 3], row.expand(2, 32))
    two = torch.stack([row, -row])
    assert torch.equal(held(two, tokens=-1)[:, -1], two)  # one row a sequence
    assert torch.equal(held(two, tokens=[4, 1])[0, [4, 1]], two)  # one row a token
    assert torch.equal(held(two[None], tokens=slice(2, 4))[1, 2:4], two)
    assert (held(7, tokens=slice(4, None))[:, 4:] == 7).all()
    part = held(2 * full, tokens=[0, 5])
    assert torch.equal(part[:, [0, 5]], 2 * full[:, [0, 5]])  # a whole activation, taken there
    assert torch.equal(part[:, 1:5], full[:, 1:5])


def test_interventions_on_one_site_follow_their_order(model):
    site = "core.1.hook_resid_post@2"
    steps = [Intervention.replace(site, 1.0), Intervention.add(site, 2.0)]
    assert (run(model, steps)[1][site] == 3).all()
    assert (run(model, steps[::-1])[1][site] == 1).all()


# ---------------------------------------------------------------- heads and ablation


def test_a_head_is_ablated_alone(model, clean):
    _, before = clean
    _, after = run(
        model, Intervention.ablate("core.0.attn.hook_z@2", heads=1, tokens=slice(3, None))
    )
    z, old = after["z", 0][2], before["z", 0][2]
    assert (z[:, 3:, 1] == 0).all()
    assert torch.equal(z[:, :, [0, 2, 3]], old[:, :, [0, 2, 3]])
    assert torch.equal(z[:, :3], old[:, :3])
    # What the head wrote is what is missing behind the output projection.
    attention = model.core[0].attn
    weight = attention.o_proj.weight.view(32, 4, 8)[:, 1]
    missing = old[:, 3:, 1] @ weight.T
    new = attention.o_proj(z.flatten(-2))[:, 3:]
    torch.testing.assert_close(new, attention.o_proj(old.flatten(-2))[:, 3:] - missing)


def test_tokens_and_heads_mean_every_head_of_every_token(model, clean):
    _, before = clean
    for site, shape in (("core.1.attn.hook_z", (2, 6, 4)), ("core.1.attn.hook_pattern", (2, 4, 6))):
        item = Intervention.ablate(f"{site}@4", tokens=[5, 2, 3], heads=[0, 2])
        mask = torch.zeros(2, 6, 4, dtype=torch.bool)
        mask[:, [[2], [3], [5]], [0, 2]] = True
        mask = mask if shape[1] == 6 else mask.transpose(1, 2)
        after = run(model, item)[1][f"{site}@4"]
        assert (after[mask] == 0).all()
        assert torch.equal(after[~mask], before[f"{site}@4"][~mask])


def test_mean_ablation_is_the_mean_of_the_sequence_or_of_a_donor(model, clean):
    _, before = clean
    site = "core.1.hook_mlp_out@3"
    _, after = run(model, Intervention.ablate(site, "mean", tokens=[1, 4]))
    mean = before[site].mean(1)
    torch.testing.assert_close(after[site][:, 4], mean)
    assert torch.equal(after[site][:, 0], before[site][:, 0])
    _, donor = run(model, tokens=OTHER)
    _, after = run(model, Intervention.ablate(site, "mean", donor=donor))
    torch.testing.assert_close(after[site], donor[site].mean((0, 1)).expand(2, 6, 32))
    padded = torch.cat((TOKENS, torch.zeros(2, 2, dtype=torch.long)), dim=1)
    mask = torch.arange(8).expand(2, 8) < 6
    item = Intervention.ablate(site, "mean", tokens=[1, 4])
    _, after = run(model, item, tokens=padded, attention_mask=mask)
    torch.testing.assert_close(after[site][:, 4], mean)  # padding has no part in it
    with pytest.raises(InputError, match="is no attention pattern"):
        run(model, Intervention.ablate("core.1.attn.hook_pattern@3", "mean"))


# ---------------------------------------------------------------- where the model runs


def test_recordings_inside_see_what_was_changed(model, tmp_path):
    prompts = ["314159", "27182", "999876"]  # of two lengths, so in two batches
    state = Intervention.add("hook_state@3", 1.0, tokens=2)
    coda = Intervention.ablate("coda.0.hook_mlp_out@5")
    options = {"iterations": T, "restarts": 2, "batch_size": 1, "progress": False}
    clean = ll.record(model, prompts, out=tmp_path / "clean", **options)
    with applied(model, [state, coda]):
        changed = ll.record(model, prompts, out=tmp_path / "changed", **options)
        trace = ll.trace(model, prompts[1], T, initial_state=changed.restart_seeds[1])
    tokens = changed.token_range(1)
    np.testing.assert_allclose(
        changed.state(restart=1, tokens=tokens), trace.trajectories()[0], atol=1e-5
    )
    moved = abs(changed.state() - clean.state()).max("d_model") > 1e-6  # restart, token, iteration
    assert not moved.isel(iteration=slice(0, 3)).any()
    for prompt in range(3):
        first = changed.token_range(prompt).start
        assert not moved.isel(token=slice(first, first + 2)).any()
        assert moved.isel(token=first + 2, iteration=slice(3, None)).all()
    # The coda reads the state and changes none: at pass 5 its ablation shows at every token.
    entropy = abs(changed.readout["entropy"] - clean.readout["entropy"]).isel(token=slice(0, 2))
    assert (entropy.sel(iteration=5) > 1e-6).all()
    assert (entropy.drop_sel(iteration=5) < 1e-6).all()


def test_a_run_whose_intervention_changed_nothing_stays_incomplete(model, tmp_path):
    item = Intervention.ablate("hook_state@2", tokens=slice(9, None))
    options = {"iterations": T, "progress": False, "interventions": item}
    with pytest.raises(SiteError, match="'hook_state@2' changed nothing"):
        ll.record(model, "314", out=tmp_path / "run", **options)
    assert not ll.open_run(tmp_path / "run").complete
    run = ll.record(model, "3141592653", out=tmp_path / "run", overwrite=True, **options)
    assert run.complete
    assert run.attrs["settings"]["interventions"] == [item.describe()]


def test_positions_count_in_the_whole_text_while_generating(model):
    items = [
        Intervention.add("hook_state@3", 1.0, tokens=slice(3, None)),
        Intervention.ablate("core.0.attn.hook_z@2:", heads=1, tokens=slice(5, 6)),
    ]
    with applied(model, items):
        generated = generate(model, [3, 1, 4, 1], max_new_tokens=4, iterations=T)
        text = torch.cat((generated.prompt_ids, generated.token_ids[:-1]))
        with torch.no_grad():
            full = model(text, iterations=T)
    torch.testing.assert_close(generated.logits, full[0, 3:], atol=1e-4, rtol=1e-4)
    plain = generate(model, [3, 1, 4, 1], max_new_tokens=4, iterations=T)
    assert (plain.logits[0] - generated.logits[0]).abs().max() > 1e-3
    with (
        pytest.raises(InputError, match="token by token there is no sequence to average over"),
        applied(model, Intervention.ablate("hook_state@2", "mean")),
    ):
        generate(model, [3, 1], max_new_tokens=2, iterations=T)


# ---------------------------------------------------------------- a trained model


def test_one_perturbation_dies_out_at_a_fixed_point_and_a_clamp_does_not():
    model = ll.load_model("affine-huginn-mini")
    text, iterations = "3+4*2", 64
    clean = ll.trace(model, text, iterations).states
    norm = clean[-1].norm(dim=-1)

    def distance(interventions):
        with applied(model, interventions):
            states = ll.trace(model, text, iterations).states
        return (states - clean).norm(dim=-1) / norm  # [iteration, batch, pos]

    torch.manual_seed(0)
    kick = 0.3 * torch.randn(clean.shape[-1]) * norm.mean() / clean.shape[-1] ** 0.5
    once = distance(Intervention.add("hook_state@8", kick))
    assert (once[:8] == 0).all()
    assert once[8].min() > 0.1
    assert once[-1].max() < 0.01 * once[8].max()
    held = distance(Intervention.replace("hook_state@8:", clean[8] + kick))
    assert held[-1].min() > 0.1


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Intervention.replace("hook_state@0", 0.0), SiteError, "pass initial_state="),
        (lambda: Intervention.replace("hook_state@x", 0.0), SiteError, "expected iterations such"),
        (
            lambda: Intervention.add("hook_state", None),
            InputError,
            "add needs a number or a tensor",
        ),
        (lambda: Intervention.ablate("hook_state", "median"), InputError, "'zero' or 'mean'"),
        (lambda: Intervention.ablate("hook_state", tokens=[]), InputError, "tokens is empty"),
        (lambda: Intervention.ablate("hook_state", heads="1"), InputError, "heads must be an int"),
        (
            lambda: Intervention.ablate("hook_state", donor=torch.zeros(2, 2)),
            InputError,
            "did you mean mode='mean'",
        ),
        (lambda: Intervention.clamp("hook_state", 3.0), InputError, "a donor must be a tensor"),
        (
            lambda: Intervention.clamp("hook_state", torch.zeros(3, 2), prompt=1),
            InputError,
            "choose a part of a run, but the donor is a Tensor",
        ),
    ],
)
def test_an_intervention_checks_itself(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("intervention", "error", "message"),
    [
        (Intervention.ablate("core.9.hook_z"), SiteError, r"no hook point\. Did you mean"),
        (Intervention.ablate("hook_state@7"), SiteError, r"none of the passes that ran .*1\.\.6"),
        (Intervention.ablate("prelude.0.hook_mlp_out@1"), SiteError, "never fired inside the loop"),
        (Intervention.ablate("hook_state", tokens=slice(6, 9)), SiteError, "changed nothing"),
        (Intervention.ablate("hook_state", tokens=6), InputError, "no token 6: there are 6"),
        (Intervention.ablate("hook_state", tokens=[1, -5]), InputError, "tokens are named twice"),
        (Intervention.ablate("hook_state", heads=0), InputError, "hook_state has no heads"),
        (Intervention.ablate("core.0.attn.hook_k", heads=2), InputError, "no head 2: there are 2"),
        (
            Intervention.replace("hook_state@2", torch.zeros(31), tokens=1),
            InputError,
            r"'hook_state@2' on hook_state: a value of shape \(31,\) fits neither .*\(2, 32\)",
        ),
        (
            Intervention.clamp("hook_state", torch.zeros(4, 2, 6, 32)),
            InputError,
            r"donor tensor has 4 passes, but pass 5 .*'@1:5'",
        ),
        (
            Intervention.clamp("hook_state", torch.zeros(6, 3, 6, 32)),
            InputError,
            r"shape \(3, 6, 32\) does not fit one of shape \(2, 6, 32\)",
        ),
        (
            Intervention.clamp("hook_embed", torch.zeros(6, 2, 6, 32)),
            InputError,
            "outside the loop",
        ),
    ],
)
def test_what_cannot_be_applied_is_an_error(model, intervention, error, message):
    with pytest.raises(error, match=message):
        run(model, intervention)
    assert not any(hook.fwd_hooks for hook in model.hook_points())  # nothing is left behind


def test_checks_before_a_forward(model):
    assert check_interventions([], model) == ()
    with pytest.raises(SiteError, match=r"'hook_state@9:' means none of the passes \(1\.\.8\)"):
        check_interventions(Intervention.ablate("hook_state@9:"), model, 8)
    with pytest.raises(InputError, match=r"expected an Intervention.*got str"):
        hooks_for(["hook_state@1"], model)
    with pytest.raises(InputError, match="and Linear has none"):
        hooks_for([Intervention.ablate("hook_state")], torch.nn.Linear(1, 1))


# ---------------------------------------------------------------- what is kept of them


def test_a_description_is_json_and_tells_values_apart():
    items = [
        Intervention.replace("hook_state@3", torch.ones(32), tokens=[1, 2]),
        Intervention.add("core.*.attn.hook_z@2:", 0.5, tokens=slice(1, None), heads=1),
        Intervention.ablate("core.0.hook_mlp_out", "mean"),
        Intervention.clamp("hook_state@2:", torch.zeros(3, 4, 32), tokens=1, donor_tokens=-1),
    ]
    said = [item.describe() for item in items]
    assert json.loads(json.dumps(said)) == said
    assert said[0]["value"]["shape"] == [32]
    assert (
        said[0] != Intervention.replace("hook_state@3", torch.zeros(32), tokens=[1, 2]).describe()
    )
    assert said[1] == {
        "kind": "add",
        "address": "core.*.attn.hook_z@2:",
        "tokens": "1:",
        "heads": 1,
        "value": 0.5,
    }
    assert said[2]["mode"] == "mean"
    assert said[3]["donor"]["from"] == "tensor"
    assert said[3]["donor_tokens"] == -1
    assert "hook_state@3" in repr(items[0])
