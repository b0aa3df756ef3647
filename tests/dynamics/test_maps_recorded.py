"""Recordings and their step: which model made them, what was kept, who sees whom."""

import copy

import pytest
import torch
from torch import nn

import looplens as ll
from looplens import Loop, LoopSpec
from looplens.dynamics.maps.loop_maps import TokenMap
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError
from looplens.models.wrapping import wrap

PROMPTS = [[3, 1, 4, 1, 5, 2, 2, 6], [1, 2, 3]]


class Late(nn.Module):
    """A loop in plain torch that sees what `sees` says, and may stop by itself."""

    def __init__(self, sees="earlier", *, stops=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layer, self.noted = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Identity()
        self.steps, self.sees, self.stops = 30, sees, stops

    def seen(self, h):
        if self.sees == "all":
            return h.mean(1, keepdim=True)
        before = h.cumsum(1) / torch.arange(1, h.shape[1] + 1)[:, None]
        if self.sees == "prefix":  # the first three positions see each other
            first = h[:, :3].mean(1, keepdim=True).expand(-1, min(3, h.shape[1]), -1)
            return torch.cat([first, before[:, 3:]], dim=1)
        return before

    def forward(self, ids):
        h = self.embed(ids)
        for _ in range(self.steps):
            before, h = h, self.noted(0.5 * h + 0.3 * torch.tanh(self.layer(self.seen(h))))
            if self.stops and (h - before).norm() < 1e-3:
                break
        return h


def late(*args, **options):
    spec = LoopSpec(
        loop=Loop("step", 30),
        layers=["layer"],
        state="noted",
        start="embed",
        iterations="steps",
        exits_early=options.get("stops", False),
    )
    return wrap(Late(*args, **options), spec, d_vocab=9, d_model=8)


def kept(model, path, **options):
    return ll.record(model, PROMPTS, out=path, progress=False, readout=False, **options)


@pytest.fixture(scope="module")
def model():
    return ll.load_model("affine-huginn-mini")


@pytest.fixture(scope="module")
def other(model):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for weight in changed.core.parameters():
            weight.mul_(1.05)
    return changed


def test_states_that_lie_apart_still_tell_the_model_that_made_them(model, other, tmp_path):
    every = kept(model, tmp_path / "every", iterations=20, keep_iterations=list(range(5, 21, 5)))
    found = recorded(model, every)
    assert found.iterations == (5, 10, 15, 20)
    assert found.mismatch < 1e-4
    with pytest.raises(InputError, match="does not lead from one recorded state to the next"):
        recorded(other, every)
    far = kept(model, tmp_path / "far", iterations=60, keep_iterations=[20, 60])
    assert recorded(model, far).mismatch != recorded(model, far).mismatch  # NaN: not known
    with pytest.raises(
        InputError, match=r"weights of affine-huginn-mini \(digest .* are not those"
    ):
        recorded(other, far)


def test_a_model_that_stops_by_itself_ends_where_it_stopped(tmp_path):
    stopping = late(stops=True)
    run = kept(stopping, tmp_path / "run", iterations=30)
    ran = run.attrs["settings"]["iterations_run"][0]
    assert max(ran) < 30
    assert ran[0] != ran[1]
    for prompt in (0, 1):
        found = recorded(stopping, run, prompt=prompt)
        assert found.iterations[-1] == ran[prompt]
        assert len(found.states) == ran[prompt] + 1
        assert found.mismatch < 1e-5


def test_prompts_restarts_and_tokens_are_counted_from_either_end(model, tmp_path):
    run = kept(model, tmp_path / "run", iterations=3, restarts=2)
    found = recorded(model, run, prompt=-1, restart=-1)
    assert (found.prompt, found.restart, found.tokens) == (1, 1, slice(8, 11))
    torch.testing.assert_close(found.states, recorded(model, run, prompt=1, restart=1).states)
    assert found.positions([-1, 0]) == [2, 0]
    assert found.numbers([2, 0]) == [10, 8]
    for wrong, message in (
        ({"prompt": 2}, "no prompt 2"),
        ({"restart": -3}, "no restart -3"),
        ({"prompt": slice(0, 1)}, "one prompt at a time"),
        ({"restart": "first"}, "restart must be an int"),
        ({"dtype": torch.bfloat16}, "in half precision rounding hides the derivative"),
        ({"dtype": "float64"}, r"dtype must be .*torch.float64, got 'float64'"),
    ):
        with pytest.raises(InputError, match=message):
            recorded(model, run, **wrong)
    for tokens in ([1.7], "a", True, [3], [], [[0]]):
        with pytest.raises(InputError, match="must be a position of the prompt or several, from 0"):
            found.positions(tokens)


@pytest.mark.parametrize(("sees", "causal"), [("earlier", True), ("all", False), ("prefix", False)])
def test_who_sees_later_positions_is_not_causal(sees, causal):
    assert recorded(late(sees), [1, 2, 3, 4, 5, 6, 7]).causal is causal


def test_a_declared_step_that_writes_in_place_leaves_the_recording_as_it_was():
    def step(module, state, ids):
        change = 0.3 * torch.tanh(module.layer(module.seen(state)))
        return state.mul_(0.5).add_(change)

    plain = late()
    spec = LoopSpec(
        loop=Loop("step", 30), layers=["layer"], state="noted", start="embed", step=step
    )
    found = recorded(wrap(plain.module, spec, d_vocab=9, d_model=8), PROMPTS[0])
    assert found.causal
    torch.testing.assert_close(found.states, recorded(plain, PROMPTS[0]).states)


def test_a_run_of_a_changed_loop_is_not_taken_for_the_loop(model, tmp_path):
    ablated = ll.Intervention.ablate("core.0.attn.hook_z")
    run = kept(model, tmp_path / "run", iterations=4, interventions=ablated)
    with pytest.raises(InputError, match="recorded with interventions has that of the changed"):
        recorded(model, run)


def test_a_hook_of_torch_makes_the_whole_prompt_run(model):
    found = recorded(model, PROMPTS[0], iterations=2)
    handle = model.core[0].mlp.register_forward_hook(lambda *_: None)
    try:
        assert not TokenMap(found.step, found.at(), [4]).is_alone
    finally:
        handle.remove()
    assert TokenMap(found.step, found.at(), [4]).is_alone
