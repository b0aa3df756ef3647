"""Intervals, scales, checks and verdicts, parallel jobs, trainings that are kept, pages."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.gallery import (
    Claim,
    Interval,
    Outcome,
    Picture,
    Scale,
    Table,
    above,
    below,
    in_parallel,
    mean_interval,
    paired,
    pictures,
    share_interval,
    sources,
    train_all,
)
from looplens.gallery.pages import write_page
from looplens.gallery.running import report, run_claim
from looplens.gallery.scripts import chosen, load, scripts
from looplens.models import LoopedConfig
from looplens.tasks import get_task
from looplens.training import Recipe, Stage

CALLS = []


def double(number):
    CALLS.append(number)
    return 2 * number


def outcome(*held):
    return Outcome(checks={f"check {i}": ok for i, ok in enumerate(held)}, summary="It came out.")


def claim(run, **values):
    given = {"number": 7, "slug": "demo", "title": "A demo", "paper": "P", "says": "s", "does": "d"}
    return Claim(**{**given, **values}, run=run)


def recipe(name, seed=0, steps=3):
    return Recipe(
        name=name,
        summary="A training of three steps.",
        task="affine",
        model=LoopedConfig(
            d_model=16,
            n_heads=2,
            d_mlp=16,
            d_vocab=len(get_task("affine").characters),
            n_ctx=16,
            n_core=1,
            default_iterations=2,
        ),
        steps=steps,
        batch=2,
        curriculum=(Stage(share=1.0, length=2, difficulty=(1, 2)),),
        seed=seed,
    )


def test_the_interval_is_students():
    interval = mean_interval([1.0, 2.0, 3.0])
    # t(0.975, 2 degrees of freedom) = 4.302653 of a standard error of 1 / sqrt(3)
    assert interval.mean == 2
    assert math.isclose(interval.high - 2, 4.302653 / math.sqrt(3), rel_tol=1e-6)
    assert math.isclose(2 - interval.low, interval.high - 2)
    assert str(mean_interval([0.92, 0.93, 0.94])) == "0.93 [0.91, 0.95]"
    assert f"{mean_interval([0.5]):.1f}" == "0.5 (n=1)"


def test_a_paired_difference_drops_what_the_seeds_share():
    difference = paired([0.9, 0.5, 0.1], [0.8, 0.4, 0.0])
    assert np.allclose([difference.low, difference.mean, difference.high], 0.1)
    with pytest.raises(InputError, match="same seeds on both sides; got 2 and 3"):
        paired([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="one finite number a seed"):
        mean_interval([1.0, math.nan])


def test_a_scale_picks_and_refuses(tmp_path):
    scale = Scale(name="quick", folder=tmp_path)
    assert scale.pick(smoke=1, quick=2, full=3) == 2
    assert [len(Scale(name=name).seeds) for name in ("smoke", "quick", "full")] == [1, 3, 5]
    assert scale.run_folder("a").parent.is_dir()
    with pytest.raises(InputError, match="smoke, quick, full; got 'huge'"):
        Scale(name="huge")


@pytest.mark.parametrize(
    ("held", "verdict"),
    [
        ((True, np.True_), "reproduced"),
        ((True, False), "partly reproduced"),
        ((True, None), "partly reproduced"),
        ((False, None), "not reproduced"),
        ((None, None), "open"),
    ],
)
def test_the_verdict_follows_from_the_checks(held, verdict):
    assert outcome(*held).verdict == verdict


def test_a_failed_sanity_check_leaves_no_verdict():
    checks = {"a": True}
    assert Outcome(checks=checks, sanity={"b": True}, summary="s").verdict == "reproduced"
    assert Outcome(checks=checks, sanity={"b": False}, summary="s").verdict.startswith("void")


def test_an_interval_decides_only_outside_of_its_ends():
    wide = Interval(mean=0.1, low=-0.1, high=0.3, n=3)
    assert [above(wide, at) for at in (-0.2, 0.0, 0.4)] == [True, None, False]
    assert [below(wide, at) for at in (-0.2, 0.0, 0.4)] == [False, None, True]
    one = mean_interval([0.1])
    assert (above(one), below(one), above(one, 0.1)) == (True, False, False)


def test_intervals_of_shares_stay_shares():
    one = share_interval([1.0, 0.9, 1.0])
    assert (one.high, one.mean) == (1.0, pytest.approx(29 / 30))
    assert one.low == mean_interval([1.0, 0.9, 1.0]).low
    with pytest.raises(InputError, match=r"from 0 to 1; got \[1.2, 0.5\]"):
        share_interval([1.2, 0.5])


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(InputError, match="at least one check"):
        outcome()
    with pytest.raises(InputError, match="2 columns, but a row of 1"):
        Table(title="t", columns=["a", "b"], rows=[[1]])
    with pytest.raises(InputError, match="small letters, digits and hyphens; got 'A b'"):
        Picture(name="A b", figure=None, caption="")
    with pytest.raises(InputError, match=r"calls \['c'\] robust, but its checks are"):
        run_claim(claim(lambda scale: outcome(True), robust=("c",)), Scale(quiet=True))


def test_jobs_keep_their_order_and_their_results(tmp_path):
    scale = Scale(folder=tmp_path, quiet=True)
    CALLS.clear()
    assert in_parallel(double, [3, 1, 2], scale, key=str) == [6, 2, 4]
    assert in_parallel(double, [2, 4, 3], scale, key=str) == [4, 8, 6]
    assert CALLS == [3, 1, 2, 4]
    assert (scale.tally.computed, scale.tally.reused) == (4, 2)


@pytest.mark.slow
def test_jobs_in_other_processes_give_the_same(tmp_path):
    scale = Scale(folder=tmp_path, workers=2, quiet=True)
    assert in_parallel(abs, [-3, 1, -2], scale) == [3, 1, 2]
    with pytest.raises(TypeError):
        in_parallel(abs, ["text", 1], scale)


@pytest.mark.slow
def test_workers_end_with_the_run_that_is_killed():
    asks = (
        "import os, time\n"
        "from looplens.gallery import Scale, in_parallel\n"
        "from looplens.gallery.workers import pool\n"
        "if __name__ == '__main__':\n"
        "    print(pool(2).submit(os.getpid).result(), flush=True)\n"
        "    in_parallel(time.sleep, [60, 60, 60], Scale(workers=2, quiet=True))\n"
    )
    run = subprocess.Popen([sys.executable, "-c", asks], stdout=subprocess.PIPE, text=True)
    assert int(run.stdout.readline()) != run.pid
    time.sleep(1)  # the jobs are under way
    run.kill()
    run.communicate(timeout=20)  # the workers hold its output open as long as they live


def test_what_other_code_made_is_not_used_again(tmp_path, monkeypatch):
    scale = Scale(folder=tmp_path, quiet=True)
    for weights, measuring in (("a", "a"), ("b", "a"), ("b", "b")):
        monkeypatch.setattr(sources, "of_weights", lambda name=weights: name)
        monkeypatch.setattr(sources, "of_measuring", lambda script, name=measuring: name)
        in_parallel(double, [1], scale, key=str)
        train_all([recipe("m", steps=1)], scale)
    assert (scale.tally.computed, scale.tally.reused) == (4, 2)
    assert len(list((tmp_path / "models").iterdir())) == 2
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_a_model_is_trained_once_whatever_its_name(tmp_path):
    scale = Scale(folder=tmp_path, quiet=True)
    models = train_all([recipe("a"), recipe("same weights"), recipe("b", seed=1)], scale)
    assert [(name, model.name) for name, model in models.items()] == [
        ("a", "a"), ("same weights", "same weights"), ("b", "b")
    ]  # fmt: skip
    assert scale.tally.computed == 2
    weights = [next(model.parameters()) for model in models.values()]
    assert bool((weights[0] == weights[1]).all())
    assert not bool((weights[0] == weights[2]).all())
    train_all([recipe("c")], scale)
    assert (scale.tally.computed, scale.tally.reused) == (2, 1)
    cards = [json.loads(path.read_text()) for path in tmp_path.glob("models/*/card.json")]
    assert (scale.tally.own, scale.tally.kept_seconds) == (1, 0)
    later = Scale(folder=tmp_path, quiet=True)
    train_all([recipe("c")], later)
    assert (later.tally.reused, later.tally.own) == (1, 0)
    assert later.tally.kept_seconds in [card["seconds"] for card in cards]
    assert not list((tmp_path / "unfinished").iterdir())
    with pytest.raises(InputError, match="'a' stands more than once"):
        train_all([recipe("a"), recipe("a", seed=1)], scale)


def test_a_page_says_what_came_out_and_how_to_get_it(tmp_path, monkeypatch):
    def names(drawn, stem, out):  # drawing starts a browser
        return [f"{stem}-{picture.name}.png" for picture in drawn]

    monkeypatch.setattr("looplens.gallery.pages._draw", names)
    monkeypatch.setattr(sources, "commit", lambda: "abc1234, modified")
    curve = pictures.lines({"k": ([1, 2], [0.2, 0.5])}, title="", x="", y="")

    def run(scale):
        return Outcome(
            checks={"loops | win": True, "b": False},
            tables=[Table(title="T", columns=["x", "y"], rows=[["a", mean_interval([1, 2, 3])]])],
            pictures=[Picture(name="curve", figure=curve, caption="See.")],
            summary="Half of it.",
            limits=("Small models.",),
        )

    result = run_claim(claim(run), Scale(folder=tmp_path, quiet=True))
    text = write_page(result, tmp_path).read_text()
    for part in (
        "# 7. A demo",
        "**Verdict: partly reproduced.** Half of it.",
        "| loops \\| win | held |",
        "![See.](07-demo-curve.png)",
        "| a | 2.00 [-0.48, 4.48] |",
        "- Small models.",
        "looplens gallery run 7 --quick",
        result.date,
        f"torch {result.versions['torch']}",
        f"looplens {result.versions['looplens']} (commit abc1234, modified)",
    ):
        assert part in text
    numbers = json.loads((tmp_path / "07-demo.json").read_text())
    assert numbers["tables"][0]["rows"][0][1]["n"] == 3
    assert numbers["pictures"][0]["curves"][0]["y"] == [0.2, 0.5]
    assert "partly reproduced" in report(result)

    # What lay there before is left out of the time, and said.
    write_page(replace(result, reused=2, computed=1, kept_seconds=90.4), tmp_path)
    assert "2 of 3 trainings and other jobs lay" in (tmp_path / "07-demo.md").read_text()
    assert " s, and 90 s of trainings before |" in (tmp_path / "index.md").read_text()

    # Another claim joins the index; a new name of the first replaces its page.
    other = claim(lambda scale: outcome(True), number=2, slug="other", title="Another")
    write_page(run_claim(other, Scale(name="smoke", quiet=True)), tmp_path)
    renamed = claim(lambda scale: outcome(False), slug="renamed")
    write_page(run_claim(renamed, Scale(quiet=True)), tmp_path)
    rows = [line for line in (tmp_path / "index.md").read_text().splitlines() if "](0" in line]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| 2", "[Another](02-other.md)", "no verdict (smoke size)"],
        ["| 7", "[A demo](07-renamed.md)", "not reproduced"],
    ]
    assert not (tmp_path / "07-demo.md").exists()

    # A page of full size stands in the index too, in a table of its own.
    full = run_claim(claim(lambda scale: outcome(True)), Scale(name="full", quiet=True))
    write_page(full, tmp_path / "full")
    above, below = (tmp_path / "index.md").read_text().split("## At full size")
    assert "| 7 | [A demo](07-renamed.md) | not reproduced |" in above
    assert "| 7 | [A demo](full/07-demo.md) | reproduced | 1 held | `looplens g" in below
    assert "[A demo](07-demo.md)" in (tmp_path / "full" / "index.md").read_text()


def test_scripts_are_read_without_being_run(tmp_path):
    text = 'raise SystemExit\nCLAIM = Claim(number=4, slug="a", title="A " "title", paper="P")\n'
    (tmp_path / "c04_a.py").write_text(text)
    assert scripts(tmp_path)[4].title == "A title"
    with pytest.raises(InputError, match=r"no claim 5 in the gallery\. The claims are 4;"):
        chosen([5], tmp_path)
    (tmp_path / "c05_b.py").write_text(text)
    assert [script.number for script in chosen([4], tmp_path)] == [4]  # the other is not read
    with pytest.raises(InputError, match=r"c05_b.py has number=4; its name says 5"):
        scripts(tmp_path)
    (tmp_path / "c05_b.py").write_text(text.replace("4", "2 + 3"))
    with pytest.raises(InputError, match=r"c05_b.py: write number= of CLAIM as a plain"):
        scripts(tmp_path)
    (tmp_path / "c05_b.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="defines no `CLAIM = Claim"):
        scripts(tmp_path)
    (tmp_path / "c05_b.py").write_text(text.replace("4", "5"))
    (tmp_path / "c05_c.py").write_text(text.replace("4", "5"))
    with pytest.raises(InputError, match=r"c05_c.py and c05_b.py both are number 5"):
        scripts(tmp_path)


def test_a_script_has_a_command_line(tmp_path, capsys):
    path = tmp_path / "c99_script_of_a_test.py"
    path.write_text(
        "from looplens.gallery import Claim, Outcome\n"
        "def run(scale):\n"
        "    scale.run_folder('kept')\n"
        "    return Outcome(checks={scale.name: True}, summary='Done.')\n"
        "CLAIM = Claim(number=99, slug='t', title='T', paper='P', says='s', does='d', run=run)\n"
    )
    made = load(scripts(tmp_path)[99])
    given = ("--smoke", "--workers", "1", "--out", str(tmp_path / "pages"))
    made.main([*given, "--cache", str(tmp_path / "cache")])
    assert "held     smoke" in capsys.readouterr().out
    page = (tmp_path / "pages" / "99-t.md").read_text()
    assert "looplens gallery run 99 --smoke --workers 1\n" in page
    assert (tmp_path / "cache" / "runs" / "smoke").is_dir()
    with pytest.raises(SystemExit, match=r"kept in a folder, but .*99-t.md is a file"):
        made.main([*given, "--cache", str(tmp_path / "pages" / "99-t.md")])
