import numpy as np
import pytest
import torch
import xarray as xr

import looplens as ll
from looplens.errors import InputError, RunExistsError, SiteError
from looplens.models import LoopedConfig, LoopedTransformer, char_tokenizer
from looplens.prompts import Prompt
from looplens.recording.streaming.readout import readout_statistics

PROMPTS = ["1234567", "99812", "0123456", "5" * 20, "7", "12", "123", "34"]


def make(**changes) -> LoopedTransformer:
    torch.manual_seed(0)
    values = {
        "d_model": 32,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_mlp": 48,
        "d_vocab": 10,
        "n_ctx": 32,
        "n_prelude": 1,
        "n_core": 2,
        "n_coda": 1,
    }
    cfg = LoopedConfig(**(values | changes))
    return LoopedTransformer(cfg, char_tokenizer("0123456789"), name="tiny").eval()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    model = make()
    run = ll.record(
        model,
        PROMPTS,
        out=tmp_path_factory.mktemp("runs") / "all",
        iterations=12,
        restarts=3,
        attention=[0, 3],
        sites=["core.*.hook_resid_post", "mlp_out", "core.*.attn.hook_k"],
        seed=11,
        batch_size=2,
        progress=False,
    )
    return model, run


def test_a_run_holds_what_trace_sees(recorded):
    model, run = recorded
    assert run.restart_seeds == (11, 12, 13)
    for prompt, restart in ((0, 2), (3, 0)):
        tokens = run.token_range(prompt)
        trace = ll.trace(
            model, PROMPTS[prompt], 12, initial_state=run.restart_seeds[restart], attention=True
        )
        np.testing.assert_allclose(
            run.state(restart=restart, tokens=tokens), trace.trajectories()[0], atol=1e-5
        )
        for layer in range(2):
            np.testing.assert_allclose(
                run.site("resid_post", restart=restart, tokens=tokens, layer=layer),
                trace.trajectories(layer)[0],
                atol=1e-5,
            )
        np.testing.assert_allclose(
            run.attention(prompt).isel(restart=restart),
            trace.attention[:, :, 0].movedim(0, 1),
            atol=1e-5,
        )


def test_trace_is_the_models_own_forward(recorded):
    model, _ = recorded
    trace = ll.trace(model, PROMPTS[0], iterations=5, initial_state=4)
    readouts = model(PROMPTS[0], iterations=5, initial_state=4, return_readouts=True)
    torch.testing.assert_close(trace.logits, readouts)
    assert trace.states.shape == (6, 1, 7, 32)
    assert trace.layer_states.shape == (5, 2, 1, 7, 32)
    assert trace.attention is None
    # the last core layer's output is the loop state, where nothing is normalised at the boundary
    torch.testing.assert_close(trace.layer_states[:, -1], trace.states[1:])


def test_padding_does_not_change_the_states_of_real_tokens():
    model = make()
    short, long = torch.tensor([3, 1, 4]), torch.tensor([1, 5, 9, 2, 6])
    ids = torch.stack([torch.cat([torch.zeros(2, dtype=torch.long), short]), long])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    together = ll.trace(model, ids, 6, initial_state=1, attention_mask=mask)
    for row, alone_ids in ((0, short), (1, long)):
        alone = ll.trace(model, alone_ids, 6, initial_state=1)
        real = mask[row].bool()
        torch.testing.assert_close(together.states[:, row, real], alone.states[:, 0])
        torch.testing.assert_close(together.logits[:, row, real], alone.logits[:, 0])


def test_a_model_with_an_exit_gate_says_when_it_would_leave():
    model = make(exit_gate=True)
    trace = ll.trace(model, PROMPTS[0], 5)
    gates = torch.stack([model.gate(state) for state in trace.states[1:]])
    torch.testing.assert_close(trace.gate_logits, gates)
    torch.testing.assert_close(trace.exit_pdf.sum(0), torch.ones(1, 7))
    leave = gates.sigmoid()
    torch.testing.assert_close(trace.exit_pdf[1], leave[1] * (1 - leave[0]))
    assert ll.trace(make(), PROMPTS[0], 5).exit_pdf is None


def test_batched_and_single_prompt_recordings_are_identical(recorded, tmp_path):
    model, run = recorded
    for index, prompt in enumerate(PROMPTS):
        alone = ll.record(
            model,
            prompt,
            out=tmp_path / str(index),
            iterations=12,
            restarts=3,
            attention=index in (0, 3),
            seed=11,
            progress=False,
        )
        tokens = run.token_range(index)
        np.testing.assert_array_equal(run.state(tokens=tokens), alone.state())
        np.testing.assert_array_equal(run.site(tokens=tokens), alone.site())
        for name in alone.readout:
            np.testing.assert_array_equal(
                run.readout[name].isel(token=tokens), alone.readout[name], err_msg=name
            )


def test_readouts_are_statistics_of_the_logits(tmp_path):
    model = make()
    prompt = Prompt(
        token_ids=(1, 2, 3, 4), text="1234", token_texts=tuple("1234"), targets=(-1, 5, -1, 7)
    )
    run = ll.record(model, prompt, out=tmp_path / "r", iterations=6, readout=3, progress=False)
    readout = run.readout.isel(restart=0)
    logp = ll.trace(model, "1234", 6).logits[:, 0].log_softmax(-1).numpy()  # [T, pos, vocab]
    p = np.exp(logp)
    order = np.argsort(-logp, axis=-1)
    expected = {
        "topk_ids": order[..., :3],
        "topk_logprobs": np.take_along_axis(logp, order[..., :3], -1),
        "entropy": -(p * logp).sum(-1),
        "kl_to_last": (p[-1] * (logp[-1] - logp)).sum(-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(
            readout[name].transpose("iteration", "token", ...), values, atol=1e-5, err_msg=name
        )
    previous = (p[:-1] * (logp[:-1] - logp[1:])).sum(-1)
    np.testing.assert_allclose(readout["kl_to_previous"].T[1:], previous, atol=1e-5)
    assert readout["kl_to_previous"].isel(iteration=0).isnull().all()
    np.testing.assert_allclose(readout["target_logprob"].T[:, 1], logp[:, 1, 5], atol=1e-5)
    assert readout["target_logprob"].isel(token=[0, 2]).isnull().all()
    rank = (order[:, 3] == 7).argmax(-1)
    np.testing.assert_array_equal(readout["target_rank"].isel(token=3), rank)
    assert (readout["target_rank"].isel(token=0) == -1).all()


def test_of_equal_logits_one_alone_is_the_answer_and_none_where_they_are_not_numbers():
    logits = torch.tensor([[2.0, 2.0, 1.0, 2.0], [torch.nan, 1, 2, 3], [-torch.inf, 1, 2, 3]])
    rows = torch.stack([logits[0], logits[0], logits[0], logits[1], logits[2]])
    targets = torch.tensor([0, 1, 3, 3, 0])
    ((_, found),) = readout_statistics(lambda t: rows, targets, 1, ran=1, kept=[1])
    best = found["topk_ids"][:, 0]
    assert ((found["target_rank"] == 0) == (best == targets))[:3].all()
    assert sorted(found["target_rank"].tolist()[:3]) == [0, 1, 1]
    assert found["target_rank"].tolist()[3:] == [-1, 3]
    assert found["entropy"].isnan().tolist() == found["kl_to_last"].isnan().tolist()
    assert found["entropy"].isnan().tolist() == [False, False, False, True, False]


def test_a_run_opens_without_looplens(recorded):
    _, run = recorded
    tree = xr.open_datatree(run.path, engine="zarr")
    assert tree["loop/state"].dims == ("restart", "token", "iteration", "d_model")
    assert tree["loop/state"].shape == (3, 47, 13, 32)
    assert tree["states/resid_post"].shape == (3, 47, 2, 12, 32)
    assert tree["states/k"].shape == (3, 47, 2, 12, 2, 8)
    assert tree["attention/3/pattern"].shape == (3, 2, 12, 4, 20, 20)
    assert list(tree["tokens/text"].values[:7]) == list("1234567")
    assert tree.attrs["model"]["name"] == "tiny"
    assert run.vocabulary == {i: str(i) for i in range(10)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": ["12", ""]}, "prompt 1: the prompt is empty"),
        ({"prompts": ["12", "1x"]}, "prompt 1: character 'x' at place 1"),
        ({"prompts": [[1, 99]]}, "prompt 0: token id 99 is outside"),
        ({"prompts": ["1" * 40]}, "40 tokens, more than n_ctx=32"),
        ({"iterations": 0}, "iterations must be an integer of at least 1"),
        ({"restarts": 0}, "restarts must be an integer of at least 1"),
        ({"restarts": 2, "initial_state": "zeros"}, "Pass initial_state='perturbed'"),
        ({"sites": "core.*.hook_rsid_post"}, "Did you mean 'core.1.hook_resid_post'"),
        ({"sites": "core.0.hook_resid_post"}, r"leaves out layer 1. Write 'core\.\*"),
        ({"sites": "core.*.hook_resid_post@3"}, "in every iteration"),
        ({"attention": [9]}, "attention names prompt 9"),
        ({"dtype": "bfloat16"}, "dtype must be one of float32, float16"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"batch_size": 1.5}, r"batch_size must be an integer of at least 1, got 1\.5"),
        ({"seed": -1}, "the seed must be an integer of at least 0, got -1"),
        ({"initial_state": -1}, "the seed must be an integer of at least 0"),
        ({"prompts": [[1.7, 2.2]]}, r"prompt 0: token ids must be integers, got 1\.7"),
        ({"prompts": [[True, False]]}, "token ids must be integers, got True"),
        ({"prompts": torch.ones(2, 3)}, "token ids must be integers"),
        ({"prompts": torch.ones(2, 3, 4, dtype=torch.int64)}, "expected one row of token ids"),
        ({"prompts": None}, "expected texts, token ids or Prompts"),
        ({"readout": None}, "readout .* must be an integer"),
        ({"attention": "x"}, "attention must be True, False, a number"),
    ],
)
def test_bad_input_writes_nothing(changes, message, tmp_path):
    options = {"out": tmp_path / "r", "iterations": 2, "progress": False} | changes
    prompts = options.pop("prompts", ["12"])
    with pytest.raises((InputError, SiteError), match=message):
        ll.record(make(), prompts, **options)
    assert not (tmp_path / "r").exists()


def test_restarts_of_a_fixed_start_need_a_perturbation(tmp_path):
    model = make(initial_state="embedding", injection="none", n_prelude=0)
    with pytest.raises(InputError, match="starts from its embedding, which is the same every time"):
        ll.record(model, "12", out=tmp_path / "r", restarts=2, progress=False)
    run = ll.record(
        model, "12", out=tmp_path / "r", restarts=2, initial_state="perturbed", progress=False
    )
    start = run.state().isel(iteration=0).values
    assert not np.allclose(start[0], start[1])
    assert "injected" not in run.tree["loop"]


def test_an_existing_run_is_kept_unless_told_otherwise(tmp_path):
    model = make()
    ll.record(model, "123", out=tmp_path / "r", iterations=2, progress=False)
    with pytest.raises(RunExistsError, match="overwrite"):
        ll.record(model, "45", out=tmp_path / "r", iterations=2, progress=False)
    assert ll.open_run(tmp_path / "r").n_tokens == 3
    ll.record(model, "45", out=tmp_path / "r", iterations=2, overwrite=True, progress=False)
    assert ll.open_run(tmp_path / "r").n_tokens == 2


def test_non_finite_states_are_recorded_and_counted(tmp_path):
    model = make()

    def break_one(value, hook):
        value = value.clone()
        value[:, 1] = torch.nan
        return value

    with model.hooks(fwd_hooks=[("core.0.hook_resid_post@3", break_one)]):
        run = ll.record(model, "1234", out=tmp_path / "r", iterations=20, progress=False)
    assert run.complete
    assert run.non_finite["loop/state"] > 0
    regimes = run.analyze("classify")["classify"].isel(restart=0)
    assert regimes["regime"][1] == "unresolved"
    assert "non-finite" in str(regimes["reason"].values[1])


def test_memory_does_not_grow_with_the_number_of_prompts(tmp_path):
    """Four times the prompts: what is kept of them (ids, texts) grows, their states do not."""
    import tracemalloc

    model = make()

    def peak(prompts: int, name: str) -> tuple[int, int]:
        tracemalloc.start()
        run = ll.record(
            model,
            ["1234567890" * 2] * prompts,
            out=tmp_path / name,
            iterations=32,
            batch_size=4,
            readout=False,  # its narrow rows fill a chunk buffer of 8192 tokens only slowly
            progress=False,
        )
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size, run.state().nbytes + run.site().nbytes

    few, few_bytes = peak(80, "few")
    many, many_bytes = peak(320, "many")
    assert many - few < 0.05 * (many_bytes - few_bytes)


def test_interventions_are_applied_while_recording_and_written_down(tmp_path):
    from looplens.recording import Intervention

    model = make()
    change = Intervention.ablate("core.1.hook_mlp_out@3")
    options = {"iterations": 6, "progress": False, "sites": ["resid_post", "mlp_out"]}
    plain = ll.record(model, PROMPTS, out=tmp_path / "plain", **options)
    changed = ll.record(model, PROMPTS, out=tmp_path / "changed", interventions=[change], **options)
    np.testing.assert_array_equal(changed.state()[:, :, :3], plain.state()[:, :, :3])
    assert not changed.site("mlp_out", layer=1).sel(iteration=3).any()
    assert not np.allclose(changed.state()[:, :, 3], plain.state()[:, :, 3])
    assert changed.attrs["settings"]["interventions"] == [change.describe()]
    with pytest.raises(SiteError, match="means none of the passes"):
        ll.record(
            model,
            "12",
            out=tmp_path / "none",
            iterations=2,
            interventions=change,
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "prompts", [np.array([1, 2, 3]), np.array([[1, 2, 3]]), [np.int64(1), 2, 3]]
)
def test_token_ids_may_come_as_arrays(prompts, tmp_path):
    run = ll.record(make(), prompts, out=tmp_path / "r", iterations=np.int64(2), progress=False)
    assert run.tokens["token_id"].values.tolist() == [1, 2, 3]


def test_attention_and_logits_count_as_memory():
    """With large maps a block is shorter; with a large vocabulary a forward has fewer prompts."""
    from looplens.recording.preparing import Request, block_size, prepare

    prompts = ["1234567890" * 3] * 24
    options = {"prompts": prompts, "iterations": 64, "restarts": 8, "readout": False}
    small = prepare(make(), Request(**options))
    maps = prepare(make(), Request(**options, attention=True))
    assert small.fitting(30, False) > maps.fitting(30, True) >= 1
    assert block_size(small.spec, None) > block_size(maps.spec, None)
    assert block_size(maps.spec, 24) == 24 * 30
    logits = prepare(make(d_vocab=50_000), Request(**options | {"readout": True}))
    assert logits.fitting(30, False) == 1
