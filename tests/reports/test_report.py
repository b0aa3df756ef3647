"""A report says what the run holds, what it does not, and works without a network."""

import importlib.resources
import json
import re

import numpy as np
import pytest

from looplens import plots, reports
from looplens.errors import AnalysisError, InputError
from looplens.prompts import Prompt
from looplens.run import open_run
from looplens.store import RunSpec, RunWriter

HOSTILE = "</script><script>window.broken=true</script><img src=x onerror='window.broken=true'>"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """A run whose texts and names try to become markup."""
    path = tmp_path_factory.mktemp("reports") / "hostile"
    rng = np.random.default_rng(0)
    prompt = Prompt(
        token_ids=(1, 2, 3),
        text=HOSTILE,
        token_texts=(HOSTILE, "| a *b*", "{{ 7 * 7 }}"),
        targets=None,
        token_metadata={},
        metadata={"note": HOSTILE},
    )
    spec = RunSpec(
        prompts=[prompt],
        iterations=20,
        n_layers=2,
        d_model=4,
        restarts=2,
        restart_seeds=(0, 1),
        initial_state="noise",
        model={"name": HOSTILE, "source": "tests", "family": HOSTILE, "config": {}},
        source_dtype="bfloat16",
        sites=("resid_post",),
    )
    decay = 0.5 ** np.arange(21)[:, None]
    states = rng.normal(size=(1, 3, 1, 4)) + rng.normal(size=(2, 3, 1, 4)) * decay
    states[1, 2, 9:] = np.nan
    with RunWriter(path, spec) as writer:
        layers = np.repeat(states[:, :, None, 1:], 2, axis=2)
        writer.write(0, 3, {"loop/state": states, "states/resid_post": layers})
    return open_run(path)


class TestContent:
    def test_it_says_what_was_recorded(self, report, run):
        facts = {
            fact.label: f"{fact.value} {fact.note}" for fact in report.section("recorded").facts
        }
        assert facts["Model"].startswith("synthetic")
        assert facts["Loop"].startswith("2 layers × 64")
        assert "seeds 0, 1" in facts["Restarts"]
        assert "float32" in facts["Arithmetic"]
        assert "resid_post" in facts["Recorded sites"]
        assert facts["Complete"].startswith("yes")
        assert report.title == f"synthetic: {run.path.name}"

    def test_the_headline_counts_the_regimes(self, report, run):
        verdicts = run.results("classify")["regime"].values
        fixed = int((verdicts == "fixed_point").sum())
        assert report.verdict[0].key == "regimes"
        assert f"{fixed} of {verdicts.size}" in report.verdict[0].text

    def test_the_verdict_is_whole_sentences_on_every_question(self, report):
        said = {statement.key: statement.text for statement in report.verdict}
        assert list(said) == ["regimes", "settling", "path_independence", "readout", "cycle"]
        assert "of the predictions are right" in said["readout"]
        assert "it fell after that" in said["readout"]
        assert all(text[0].isupper() or text[0].isdigit() for text in said.values())
        assert all(text.endswith(".") for text in said.values())

    def test_it_has_every_section_with_its_figures(self, report):
        keys = [section.key for section in report.sections]
        assert keys[:3] == ["recorded", "convergence", "regimes"]
        assert len(keys) == len(set(keys))
        assert {"path_independence", "readout", "exits", "groups", "cycle"} <= set(keys)
        assert {"geometry", "attention", "stages"} <= set(keys)
        names = [picture.name for section in report.sections for picture in section.pictures]
        assert len(names) == len(set(names))
        assert {"convergence", "settling", "regimes", "gap", "restarts", "readout"} <= set(names)
        assert {"cycle", "attention", "attention-change", "trajectory-orbit"} <= set(names)

    def test_examples_name_tokens_with_period_and_reason(self, report):
        tables = report.section("regimes").tables
        counts = tables[0]
        examples = next(table for table in tables if table.caption.startswith("Examples"))
        assert sum(int(row[1]) for row in counts.rows) == 48
        orbits = [row for row in examples.rows if row[0] == "orbit"]
        assert orbits
        assert all(row[4] != "–" for row in orbits)
        assert all(row[6] for row in examples.rows)

    def test_the_worst_token_of_path_independence_has_two_basins(self, report):
        worst = report.section("path_independence").tables[0].rows[0]
        assert worst[0].startswith("7 ")
        assert any("depends on the initial state" in item.text for item in report.verdict)

    def test_all_numbers_are_listed_under_the_names_of_conditions(self, report):
        listed = [row[0] for table in report.appendix[0].tables for row in table.rows]
        assert "path_independence.aa_score" in listed
        known = {
            name: value
            for name, value in reports.conditions.flatten(report.summary).items()
            if isinstance(value, int | float) and value == value
        }
        assert set(known) <= set(listed)
        reports.check([f"{name} == 0" for name in known], report.summary)


class TestWhatCouldNotBeConcluded:
    def test_a_hasty_recording_is_told_everything_it_lacks(self, lonely_run):
        made = reports.build(lonely_run)
        said = {statement.key: statement.text for statement in made.not_concluded}
        assert {"iterations", "restarts", "layers", "attention", "unresolved", "orbits"} <= set(
            said
        )
        assert "Only 12 iterations were recorded: too few" in said["iterations"]
        assert "restarts=2" in said["restarts"]
        assert said["unresolved"].startswith("8 of 8 trajectories have no regime: 8 too short (")
        assert made.section("path_independence") is None
        assert made.section("cycle") is None

    def test_no_orbits_comes_with_the_power_to_see_one(self, lonely_run):
        said = {item.key: item.text for item in reports.build(lonely_run).not_concluded}["orbits"]
        assert "14\u202f978 tokens" in said
        assert "2\u202f139 tokens" in said
        assert "among 0 tokens with a regime. " in said

    def test_seeing_no_orbit_rules_out_only_what_it_can(self, hostile_run):
        said = {item.key: item.text for item in reports.build(hostile_run).not_concluded}["orbits"]
        assert "among 3 tokens with a regime, which rules out" in said
        assert f"more than {100 * reports.largest_rate_unseen(3):.1f}" in said

    def test_a_full_recording_is_not_told_what_it_has(self, report):
        said = {statement.key for statement in report.not_concluded}
        assert not said & {"restarts", "readout", "targets", "layers", "attention", "orbits"}

    def test_missing_targets_and_coarse_arithmetic(self, hostile_run):
        said = {item.key: item.text for item in reports.build(hostile_run).not_concluded}
        assert "no readout was recorded" in said["readout"]
        assert "bfloat16: motion below about 1 %" in said["source_dtype"]

    def test_states_that_are_not_finite_are_named_and_break_nothing(self, hostile_run):
        made = reports.build(hostile_run)
        said = {item.key: item.text for item in made.not_concluded}
        assert "loop/state (48)" in said["non_finite"]
        assert "not finite" in said["unresolved"] or "non-finite" in said["unresolved"]
        for name, options in {
            "trajectory": {"tokens": [2], "restart": 1},
            "restarts": {"token": 2},
            "convergence_heatmap": {"restart": 1},
        }.items():
            assert plots.FIGURES[name](hostile_run, **options).to_json()
        with pytest.raises(AnalysisError, match="token 2 are not finite"):
            plots.cycle(hostile_run, 2, 1)

    def test_a_recording_that_stopped_is_reported_as_such(self, hostile_run, tmp_path):
        spec = RunSpec(
            prompts=[Prompt(token_ids=(1,), text="a", token_texts=("a",), targets=None)] * 2,
            iterations=4,
            n_layers=1,
            d_model=2,
            restarts=1,
            restart_seeds=(0,),
            initial_state="noise",
            model={"name": "stopped"},
            sites=(),
        )
        with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path / "run", spec):
            raise KeyboardInterrupt
        made = reports.build(open_run(tmp_path / "run"))
        assert made.verdict[0].text.startswith("The recording is not complete")
        assert made.not_concluded[0].key == "incomplete"
        assert "analysis_convergence" not in {item.key for item in made.not_concluded}
        assert "0 of 1 block" in made.to_markdown()


def test_power_of_a_sample():
    assert reports.tokens_needed(2e-4) == 14978
    assert reports.tokens_needed(1.4e-3) == 2139
    needed = reports.tokens_needed(0.01)
    assert (
        reports.chance_of_seeing(0.01, needed) >= 0.95 > reports.chance_of_seeing(0.01, needed - 1)
    )
    assert reports.chance_of_seeing(reports.largest_rate_unseen(50), 50) == pytest.approx(0.95)
    with pytest.raises(InputError, match="rate must lie strictly between 0 and 1, got 0"):
        reports.tokens_needed(0)


class TestHtml:
    def test_nothing_outside_plotlyjs_names_an_address(self, report):
        page = report.to_html()
        scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
        library = max(scripts, key=len)
        rest = page.replace(library, "")
        assert len(library) > 1_000_000
        assert sum("plotly.js v" in script for script in scripts) == 1
        assert not re.search(r"https?://|//cdn|src=|@import|url\(", rest)
        assert "cloud.plotly.com" not in page

    def test_the_template_ships_with_the_package(self):
        templates = importlib.resources.files("looplens.reports") / "templates"
        assert (templates / "report.html.j2").is_file()
        assert (templates / "report.css").is_file()

    @pytest.mark.browser
    def test_a_browser_draws_it_without_a_request_or_an_error(
        self, report, hostile_run, tmp_path, chromium
    ):
        for name, made in {"full": report, "hostile": reports.build(hostile_run)}.items():
            path = tmp_path / f"{name}.html"
            path.write_text(made.to_html(), encoding="utf-8")
            page = chromium.new_page()
            assert self.problems(page, path, made) == []
            page.close()

    @staticmethod
    def problems(page, path, made):
        """Open a page, wait for its figures, and return whatever went wrong."""
        found = []

        def on_request(request):
            if not request.url.startswith(("file:", "data:", "blob:")):
                found.append(request.url)

        page.on("request", on_request)
        page.on("pageerror", lambda error: found.append(str(error)))
        page.on("console", lambda message: found.append(message.text))
        page.goto(path.as_uri())
        pictures = sum(len(section.pictures) for section in made.sections)
        page.wait_for_function(
            f"document.querySelectorAll('figure .plot-container').length == {pictures}"
        )
        titles = page.eval_on_selector_all(
            ".modebar-btn", "buttons => buttons.map(button => button.dataset.title)"
        )
        assert not any("cloud" in title.lower() or "share" in title.lower() for title in titles)
        assert page.evaluate("window.broken") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        return found


class TestOtherFormats:
    def test_json_is_valid_and_its_keys_are_stable(self, report, lonely_run):
        content = json.loads(report.to_json())
        assert sorted(content) == ["not_concluded", "report_version", "run", "summary", "verdict"]
        assert content["run"]["iterations"] == 64
        assert content["run"]["restart_seeds"] == [0, 1]
        assert isinstance(content["summary"]["path_independence"]["aa_score"], float)
        assert "NaN" not in reports.build(lonely_run).to_json()

    def test_markdown_carries_the_words_and_escapes_the_run(self, report, hostile_run):
        text = report.to_markdown()
        assert text.startswith("# synthetic: full run")
        assert report.verdict[0].text.replace("_", r"\_") in text
        assert "## What could not be concluded, and why" in text
        hostile = reports.build(hostile_run).to_markdown()
        assert "<script>" not in hostile
        assert r"\| a" in hostile.replace("␣", " ")

    def test_writing_picks_the_format_and_makes_the_folder(self, lonely_run, tmp_path):
        for name, start in {"html": "<!doctype", "json": "{", "md": "# synthetic"}.items():
            written = reports.write_report(lonely_run, tmp_path / "new" / f"report.{name}", name)
            assert written.read_text().lstrip().lower().startswith(start)
        with pytest.raises(
            InputError, match="format must be one of 'html', 'json', 'md', got 'pdf'"
        ):
            reports.write_report(lonely_run, tmp_path / "report.pdf", "pdf")
        with pytest.raises(InputError, match="is a directory"):
            reports.write_report(lonely_run, tmp_path)
