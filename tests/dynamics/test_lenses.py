"""Lenses against the model's own forward, the recording, and each other."""

import numpy as np
import pytest
import torch

import looplens as ll
from looplens import analysis, plots
from looplens.errors import AnalysisError, InputError
from looplens.loops import Loop, LoopSpec
from looplens.models.wrapping import wrap
from looplens.reports._material import Material
from looplens.reports._sections.lens import lens as section

MODELS = {
    "affine-huginn-mini": [1, 2, 3, 4, 5, 6],
    "phop-huginn-mini": [1, 2, 3, 4, 5, 6, 7],
    "phop-ouro-mini": [3, 2, 1, 4, 4, 6, 7],
}


@pytest.fixture(scope="module", params=MODELS)
def recorded(request, tmp_path_factory):
    model = ll.load_model(request.param)
    run = ll.record(
        model,
        [MODELS[request.param]],
        out=tmp_path_factory.mktemp("lens") / "run",
        iterations=6,
        progress=False,
    )
    return model, run


@torch.no_grad()
def test_the_coda_lens_at_the_end_is_the_forward(recorded):
    model, run = recorded
    found = ll.lens(model, run, top_k=9)
    assert found.attrs["self_check"] in ("exact", "rounding")
    assert found.attrs["self_check_difference"] < 1e-5
    ids = torch.tensor(run.tokens["token_id"].values.astype(np.int64))[None]
    forward = model(ids, iterations=6)[0].log_softmax(-1)
    last = found.sel(lens="coda").isel(layer=-1, iteration=-1)
    top = forward.topk(9)
    np.testing.assert_array_equal(last["topk_ids"], top.indices)
    # The forward's matrix products have other shapes: the last bits may differ.
    np.testing.assert_allclose(last["topk_logprobs"], top.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last["kl_to_final"], 0, atol=1e-6)


def test_the_coda_lens_after_the_last_layer_is_the_recorded_readout(recorded):
    model, run = recorded
    coda = ll.lens(model, run).sel(lens="coda").isel(layer=-1)
    stored = run.readout.isel(restart=0)
    np.testing.assert_array_equal(coda["topk_ids"], stored["topk_ids"].values)
    np.testing.assert_allclose(coda["entropy"], stored["entropy"].values, atol=1e-5)
    np.testing.assert_allclose(coda["kl_to_final"], stored["kl_to_last"].values, atol=1e-5)
    final = coda["followed_rank"].sel(followed="final")
    best = stored["topk_ids"].values[..., 0]
    np.testing.assert_array_equal(final == 0, best == best[:, -1:])
    assert (final.isel(iteration=-1) == 0).all()


@torch.no_grad()
def test_the_logit_lens_is_norm_and_head(recorded):
    model, run = recorded
    found = ll.lens(model, run, layers=[0], iterations=[2, 5])
    stream = torch.tensor(run.site(restart=0, layer=0).sel(iteration=5).values)
    logp = (model.ln_final(stream) @ model.embed.weight.T).log_softmax(-1)
    logit = found.sel(lens="logit", layer=0, iteration=5)
    np.testing.assert_allclose(logit["topk_logprobs"], logp.topk(5).values, atol=1e-5)
    assert found["iteration"].values.tolist() == [2, 5]
    if not model.cfg.n_coda:  # then the coda lens takes the same way
        np.testing.assert_allclose(logit["entropy"], found["entropy"].sel(lens="coda")[:, 0, 1])


@pytest.fixture(scope="module")
def affine(tmp_path_factory):
    model = ll.load_model("affine-huginn-mini")
    prompts = [
        ll.Prompt(
            text="a",
            token_ids=(1, 2, 3, 4, 5),
            token_texts=tuple("abcde"),
            targets=(-1, 3, -1, 2, 6),
        ),
        ll.Prompt(
            text="b",
            token_ids=(5, 6, 1, 2, 2),
            token_texts=tuple("efabb"),
            targets=(-1, -1, -1, -1, 4),
        ),
    ]
    out = tmp_path_factory.mktemp("affine") / "run"
    return model, ll.record(model, prompts, out=out, iterations=5, restarts=2, progress=False)


def test_followed_tokens_and_several_prompts(affine):
    model, run = affine
    found = ll.lens(model, run, prompt=[0, 1], restart=1, follow={"three": 3})
    assert found["followed"].values.tolist() == ["target", "final", "three"]
    assert found["token"].values.tolist() == list(range(10))
    coda = found.sel(lens="coda").isel(layer=-1)
    np.testing.assert_array_equal(
        coda["followed_rank"].sel(followed="target"), run.readout["target_rank"].values[1]
    )
    np.testing.assert_array_equal(  # the target of token 1 is 3
        coda["followed_logprob"].sel(followed="three", token=1),
        coda["followed_logprob"].sel(followed="target", token=1),
    )
    agreement = (found["followed_rank"].sel(followed="final") == 0).mean("token")
    np.testing.assert_array_equal(found["final_agreement"], agreement)
    each = ll.lens(model, run, prompt=[-1, 0, 0], restart=1, follow={"each": np.arange(10) % 9})
    assert each.attrs["prompts"] == [1, 0]
    assert each["followed_id"].sel(followed="each").values.tolist() == [*range(9), 0]
    assert found["topk_text"].values[0, 0, 0, 0, 0] == model.tokenizer.token_text(
        int(found["topk_ids"][0, 0, 0, 0, 0])
    )


def test_a_stored_result_is_an_analysis_with_figures_and_a_section(affine):
    model, run = affine
    assert "lens" not in analysis.summary(run)
    with pytest.raises(AnalysisError, match=r"looplens\.lens\(model, run"):
        plots.lens(run)
    found = ll.lens(model, run, prompt=1, store=True)
    run = ll.open_run(run.path)
    assert analysis.summary(run)["lens"]["coda_last_layer"] == 1
    assert "lens" in run.analyze("all")
    maps = plots.lens(run, 7)
    assert [trace.z.shape for trace in maps.data] == [(2, 5), (2, 5)]
    assert (
        maps.data[1].text[-1][-1] == found["topk_text"].sel(lens="coda", token=7).values[-1][-1, 0]
    )
    ranks = plots.lens_ranks(run, theme="dark")
    assert {trace.name for trace in ranks.data} == {"target", "final"}
    with pytest.raises(AnalysisError, match="token 2"):
        plots.lens(run, 2)
    table = section(Material(run)).tables[0]
    assert table.columns == ("after layer", "logit lens", "coda lens")
    assert "100" in table.rows[-1][-1]


def test_another_model_is_noticed(affine):
    model, run = affine
    other = ll.LoopedTransformer(model.cfg, model.tokenizer).eval()
    with pytest.raises(AnalysisError, match="weights are not those of the run"):
        ll.lens(other, run)
    with pytest.raises(InputError, match="n_layers=1"):
        ll.lens(ll.load_model("phop-huginn-mini"), run)
    with pytest.raises(InputError, match="0 to 8"):
        ll.lens(model, run, follow={"far": 12})
    with pytest.raises(InputError, match="or 10 of them"):
        ll.lens(model, run, prompt=[0, 1], follow={"far": [1] * 5})
    with pytest.raises(InputError, match="follow must map names"):
        ll.lens(model, run, follow=3)
    with pytest.raises(InputError, match="run must be a recorded run"):
        ll.lens(model, "runs/demo")
    with pytest.raises(InputError, match="followed already"):
        ll.lens(model, run, follow={"final": 1})
    with pytest.raises(InputError, match="iterations"):
        ll.lens(model, run, iterations=[9])


def test_runs_that_lack_what_a_lens_needs(affine, tmp_path):
    model, _ = affine
    options = {"iterations": 4, "progress": False}
    reduced = ll.record(model, [[1, 2, 3]], out=tmp_path / "r", reduce="random:8", **options)
    with pytest.raises(AnalysisError, match="8 components"):
        ll.lens(model, reduced)
    last = ll.record(model, [[1, 2, 3]], out=tmp_path / "l", tokens="last", **options)
    with pytest.raises(AnalysisError, match="tokens='all'"):
        ll.lens(model, last)
    early = ll.record(model, [[1, 2, 3]], out=tmp_path / "e", layers=[0], **options)
    assert ll.lens(model, early, store=True).attrs["self_check"] == "not possible"
    assert analysis.summary(early)["lens"]["self_check_difference"] is None
    assert "largest" not in section(Material(early)).facts[0].note
    half = ll.record(model, [[1, 2, 3]], out=tmp_path / "h", dtype="float16", **options)
    assert ll.lens(model, half).attrs["self_check"] == "rounding"
    with pytest.raises(AnalysisError, match="larger tolerance"):
        ll.lens(model, half, tolerance=0)


def test_what_is_not_finite_is_no_prediction(affine, tmp_path):
    model, _ = affine
    broken = ll.LoopedTransformer(model.cfg, model.tokenizer).eval()
    broken.load_state_dict(model.state_dict())

    def spoil(module, args, output):
        return output * torch.nan if output.shape[1] == 3 else output

    broken.core[0].register_forward_hook(spoil)
    prompts = [[1, 2, 3], [1, 2, 3, 4]]
    run = ll.record(broken, prompts, out=tmp_path / "nan", iterations=3, progress=False)
    found = ll.lens(broken, run, prompt=[0, 1], follow={"two": 2}, store=True)
    ranks = found["followed_rank"].sel(lens="coda").isel(layer=-1, iteration=-1)
    assert (ranks.isel(token=slice(0, 3)) == -1).all()
    assert (ranks.sel(followed="final").isel(token=slice(3, 7)) == 0).all()
    assert found["final_agreement"].sel(lens="coda").values[-1, -1] == 1
    assert np.isnan(ll.lens(broken, run, prompt=0)["final_agreement"]).all()
    assert plots.lens_ranks(run, 0).data


class Residual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, h):
        return h + torch.tanh(self.linear(h))


class Normed(torch.nn.Module):
    """embedding -> (layer) x steps, normed after each -> head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(9, 8)
        self.layer = Residual()
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 9, bias=False)
        self.steps = 4

    def forward(self, ids):
        h = self.embed(ids)
        for _ in range(self.steps):
            h = self.norm(self.layer(h))
        return self.head(h)


def test_a_wrapped_model_says_where_its_norm_and_head_are(tmp_path):
    module = Normed().eval()
    spec = LoopSpec(
        loop=Loop("step", 4), layers=["layer"], state="norm", iterations="steps", readout="head"
    )
    model = wrap(module, loop=spec, d_model=8, d_vocab=9)
    run = ll.record(model, [[1, 2, 3]], out=tmp_path / "run", progress=False)
    with pytest.raises(AnalysisError, match="to_state"):
        ll.lens(model, run)
    found = ll.lens(model, run, to_state=module.norm)
    assert found["lens"].values.tolist() == ["coda"]
    assert found.attrs["self_check_difference"] < 1e-5
    both = ll.lens(
        model, run, to_state=module.norm, head=lambda stream: module.head(module.norm(stream))
    )
    np.testing.assert_allclose(both["entropy"].sel(lens="logit"), both["entropy"].sel(lens="coda"))
