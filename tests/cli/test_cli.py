"""The command line as a new user meets it: in process, through the real entry point."""

import json
import shutil

import pytest

from looplens.cli import main


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run one command; return (exit code, standard output, standard error)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["looplens", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return int(code), out, err

    return run


@pytest.fixture
def run_path(synthetic_run_path, tmp_path):
    return shutil.copytree(synthetic_run_path, tmp_path / "run")


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "models", "train", "record", "info", "verify", "analyze", "report", "compare"),
        *("dynamics", "app", "gallery", "gallery run", "gallery show"),
    ],
)
def test_every_command_shows_an_example(cli, command):
    code, out, _ = cli(*command.split(), "--help")
    assert code == 0
    assert f"looplens {command}" in out.split("Example:")[1]


def test_the_app_is_given_every_path_and_a_token_from_the_environment(cli, monkeypatch):
    import looplens_dashboard

    asked = []
    monkeypatch.setattr(
        looplens_dashboard, "serve", lambda paths, **options: asked.append((paths, options)), False
    )
    monkeypatch.setenv("LOOPLENS_ACCESS", "from the environment")
    assert cli("app", "runs/a", "runs", "--port", 0, "--models", "m")[0] == 0
    assert asked == [
        (
            ["runs/a", "runs"],
            {
                "host": "127.0.0.1",
                "port": 0,
                "access": "from the environment",
                "open_browser": False,
                "models": ["m"],
            },
        )
    ]
    monkeypatch.undo()
    code, _, err = cli("app", "/nowhere/at/all")
    assert code == 2
    assert "the directory does not exist" in err


def test_the_demo_shows_what_it_found(cli, tmp_path):
    out = tmp_path / "demo"
    code, text, _ = cli("demo", "--out", out, "--prompts", 4, "--iterations", 64, "--restarts", 2)
    assert code == 0
    assert "fixed_point" in text
    assert "settling" in text
    assert "Path independence over 2 restarts" in text
    assert "Verified fixed points: 4 of 4 tokens" in text
    assert f"looplens app {out}" in text
    page = out.with_suffix(".html").read_text()
    assert "<html" in page[:200].lower()
    assert 'id="figure-dynamics-landscape"' in page


def test_record_then_analyze_then_info(cli, tmp_path):
    run = tmp_path / "r"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("3+4*2\n\n1*5\n")
    code, text, _ = cli(
        *("record", "affine-huginn-mini", "--out", run, "--prompts", prompts, "--prompt", "2+2"),
        *("--iterations", 20, "--site", "resid_post", "--site", "mlp_out", "--no-progress"),
    )
    assert code == 0
    assert "3 prompts, 11 tokens, 20 iterations, 1 restarts" in text
    code, text, _ = cli("analyze", run, "--only", "convergence")
    assert code == 0
    assert "settled_share" in text
    code, text, _ = cli("info", run, "--json")
    facts = json.loads(text)
    assert facts["sites"] == ["resid_post", "mlp_out"]
    assert facts["analyses"] == ["convergence"]


def test_record_keeps_what_is_asked_for_and_info_says_what(cli, tmp_path):
    run = tmp_path / "r"
    command = (
        *("record", "affine-huginn-mini", "--out", run, "--prompt", "3+4*2", "--iterations", 12),
        *("--layers", "-1", "--keep-iterations", "every:4", "--tokens", "0,-1"),
        *("--reduce", "random:8", "--no-progress"),
    )
    code, text, _ = cli(*command, "--dry-run")
    assert code == 0
    assert "loop/state" in text
    assert not run.exists()
    assert cli(*command)[0] == 0
    facts = json.loads(cli("info", run, "--json")[1])
    assert facts["iterations kept"] == [4, 8, 12]
    assert facts["tokens kept"] == "2 of 5"
    assert facts["stored dimensions"].startswith("8 of 64, random")
    assert facts["blocks recorded"] == "1 of 1"
    assert cli("report", run, "--format", "md")[0] == 0
    assert cli("record", *command[1:], "--resume")[0] == 0  # nothing is left to do


def test_workers_record_parts_that_make_one_run(cli, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("3+4*2\n" * 6)
    command = (
        *("record", "affine-huginn-mini", "--prompts", prompts, "--iterations", 8),
        *("--block-tokens", 8, "--no-progress"),
    )
    code, text, _ = cli(*command, "--out", tmp_path / "r", "--worker", "1/2")
    assert code == 0
    assert "2 of 4 blocks are recorded" in text
    assert json.loads(cli("info", tmp_path / "r", "--json")[1])["complete"] is False
    assert cli(*command, "--out", tmp_path / "r", "--worker", "0/2")[0] == 0
    assert cli(*command, "--out", tmp_path / "whole")[0] == 0
    for path in sorted((tmp_path / "whole").rglob("*")):
        if path.is_file() and path.name != "zarr.json":
            same = tmp_path / "r" / path.relative_to(tmp_path / "whole")
            assert same.read_bytes() == path.read_bytes()


def test_verify_names_the_block_of_a_flipped_byte(cli, run_path):
    code, text, _ = cli("verify", run_path)
    assert code == 0
    chunk = next(path for path in sorted((run_path / "loop/state/c").rglob("*")) if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    code, text, _ = cli("verify", run_path)
    assert code == 1
    assert "loop/state" in text
    assert "block 0" in text
    found = json.loads(cli("verify", run_path, "--json")[1])
    assert found["ok"] is False


def test_record_draws_from_the_models_task(cli, tmp_path):
    run = tmp_path / "r"
    code, text, _ = cli(
        *("record", "phop-ouro-mini", "--out", run, "--n", 2, "--iterations", 4),
        *("--restarts", 2, "--initial-state", "perturbed", "--no-progress"),
    )
    assert code == 0
    assert "2 prompts" in text


def test_report_formats_and_conditions(cli, run_path, tmp_path):
    page = tmp_path / "report.html"
    assert cli("report", run_path, "--out", page)[0] == 0
    assert "<html" in page.read_text()[:200].lower()
    code, text, _ = cli("report", run_path, "--format", "json")
    assert code == 0
    assert json.loads(text)
    code, text, _ = cli("report", run_path, "--format", "md")
    assert text.startswith("# ")
    assert cli("report", run_path, "--out", tmp_path / "both", "--format", "json,md")[0] == 0
    assert json.loads((tmp_path / "both.json").read_text())
    assert (tmp_path / "both.md").read_text().startswith("# ")
    passed = cli("report", run_path, "--format", "md", "--fail-if", "classify.orbit_share > 0.99")
    assert passed[0] == 0
    code, _, err = cli(
        "report", run_path, "--format", "md", "--fail-if", "classify.orbit_share < 2"
    )
    assert code == 1
    assert "classify.orbit_share < 2" in err


def test_an_existing_run_is_kept(cli, run_path):
    before = (run_path / "zarr.json").read_bytes()
    code, _, err = cli("record", "affine-huginn-mini", "--out", run_path, "--prompt", "1+1")
    assert code == 2
    assert "--overwrite" in err
    assert (run_path / "zarr.json").read_bytes() == before


@pytest.mark.parametrize("command", ["report", "analyze"])
def test_a_truncated_array_is_named(cli, run_path, command):
    chunk = next(path for path in sorted((run_path / "loop/state/c").rglob("*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-100])
    code, _, err = cli(command, run_path)
    assert code == {"analyze": 2, "report": 0}[command]
    assert "could not be made: convergence" in " ".join(err.split())
    assert "loop/state" in err


def test_analyze_counts_what_is_missing_or_cannot_be_read(cli, part_run_path, tmp_path):
    run = shutil.copytree(part_run_path, tmp_path / "part")
    code, _, err = cli("analyze", run, "--only", "convergence")
    assert code == 0
    assert "8 of 24 tokens are not recorded yet" in err
    chunk = next(path for path in sorted((run / "loop/state/c").rglob("*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-100])
    code, _, err = cli("analyze", run, "--only", "convergence")
    assert code == 0
    assert "warning: 1 of 2 blocks" in err
    assert "Traceback" not in err


def test_analyze_spreads_over_a_dask_cluster(cli, run_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    kind = {"processes": False, "dashboard_address": None, "protocol": "tcp"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **kind) as cluster:
        address = cluster.scheduler_address
        code, text, _ = cli("analyze", run_path, "--only", "convergence", "--scheduler", address)
    assert code == 0
    assert "settled_share" in text


def test_a_run_of_a_newer_looplens_says_so(cli, run_path):
    path = run_path / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["schema_version"] = 99
    path.write_text(json.dumps(document))
    code, _, err = cli("info", run_path)
    assert code == 2
    assert "99" in err
    assert "looplens" in err


def test_a_condition_on_what_was_not_recorded_says_why(cli, tmp_path):
    run = tmp_path / "r"
    cli("record", "affine-huginn-mini", "--out", run, "--prompt", "1+1", "--iterations", 16)
    for condition in ("path_independence.aa_score < 0.95", "aa_score < 0.95"):
        code, _, err = cli("report", run, "--format", "md", "--fail-if", condition)
        assert code == 2
        assert "cannot be checked" in err
        assert "restart" in err


def test_models_lists_what_ships(cli):
    code, text, _ = cli("models")
    assert code == 0
    for name in ("affine-huginn-mini", "phop-huginn-mini", "phop-ouro-mini"):
        assert name in text


def test_train_without_a_name_lists_the_recipes(cli):
    code, text, _ = cli("train")
    assert code == 0
    assert "phop-ouro-mini  Four hops without injection" in text
    assert "depth always 4" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "affine-hugin-mini", "--out", "r"], "Did you mean 'affine-huginn-mini'"),
        (["train", "affine-huginn-min"], "affine-huginn-mini"),
        (["record", "affine-huginn-mini", "--out", "r", "--prompt", ""], "the prompt is empty"),
        (["record", "affine-huginn-mini", "--out", "r", "--prompt", "3%4"], "character '%'"),
        (["record", "affine-huginn-mini", "--out", "r", "--iterations", "0"], "at least 1, got 0"),
        (["record", "phop-ouro-mini", "--out", "r", "--restarts", "2"], "'perturbed'"),
        (["record", "affine-huginn-mini", "--out", "r", "--site", "resid_pots"], "Did you mean"),
        (["record", "affine-huginn-mini", "--out", "r", "--task", "afine"], "affine"),
        (["record", "affine-huginn-mini", "--out", "r", "--prompts", "no.txt"], "cannot read"),
        (["record", "affine-huginn-mini", "--out", "r", "--layers", "a"], "--layers expects"),
        (["record", "affine-huginn-mini", "--out", "r", "--layers", "9"], "layers names 9, but"),
        (["record", "affine-huginn-mini", "--out", "r", "--tokens", "x"], "'all', 'last', pos"),
        (
            ["record", "affine-huginn-mini", "--out", "r", "--reduce", "pca"],
            "'random:64', 'pca:64'",
        ),
        (["record", "affine-huginn-mini", "--out", "r", "--worker", "2/2"], "no worker 2 of 2"),
        (["record", "affine-huginn-mini", "--out", "s9://b/r", "--prompt", "1"], "s9"),
        (["analyze", "{run}", "--scheduler", "nowhere"], "no Dask scheduler answers"),
        (["verify", "nowhere"], "nowhere"),
        (["info", "nowhere"], "nowhere"),
        (["report", "{run}", "--fail-if", "aa_score"], "is not a condition"),
        (["report", "{run}", "--format", "md", "--fail-if", "classify.orbits > 1"], "Did you mean"),
        (["report", "{run}", "--format", "jsn"], "Did you mean 'json'"),
        (["analyze", "{run}", "--only", "clasify"], "Did you mean 'classify'"),
        (["app", "nowhere"], "nowhere"),
        (["train", "phop-ouro-mini", "--out", "{run}"], "is not a model"),
        (["train", "phop-ouro-mini", "--device", "foo"], "cannot be used here"),
        (["record", "affine-huginn-mini", "--out", "r", "--device", "foo"], "cannot be used here"),
        (["record", "affine-huginn-mini", "--out", "r", "--seed", "-1"], "seed"),
        (["record", "affine-huginn-mini", "--out", "r", "--precision", "int8"], "bfloat16"),
        (["record", "affine-huginn-mini", "--out", "r", "--loop", "4"], "START:STOP"),
        (["report", "{run}", "--out", ".", "--format", "md"], "is a directory"),
        (["report", "{run}", "--out", "{run}/report.html"], "lies inside the run"),
        (["report", "{run}", "--out", "report.pdf"], "ends in .html, .json, .md"),
        (["report", "{run}", "--out", "/proc/report.html"], "cannot be written"),
    ],
)
def test_mistakes_end_in_one_message_and_code_2(
    cli, arguments, message, run_path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    code, _, err = cli(*[item.replace("{run}", str(run_path)) for item in arguments])
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert set(tmp_path.iterdir()) == before


def test_an_unexpected_error_is_not_taken_for_a_failed_condition(cli, run_path, monkeypatch):
    def broken(run):
        raise RuntimeError("something else")

    monkeypatch.setattr("looplens.reports.build", broken)
    code, _, err = cli("report", run_path, "--format", "md")
    assert code == 70
    assert "something else" in err
    assert "bug" in err
