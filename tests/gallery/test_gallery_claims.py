"""Every claim of the gallery runs at smoke size, and its robust checks hold there."""

import pytest

from looplens.gallery import Scale
from looplens.gallery.pages import page_text
from looplens.gallery.running import report, run_claim
from looplens.gallery.scripts import load, scripts


@pytest.fixture(scope="module")
def scale(tmp_path_factory):
    return Scale(name="smoke", folder=tmp_path_factory.mktemp("gallery"), quiet=True)


@pytest.mark.parametrize("number", scripts(), ids=lambda number: f"c{number:02d}")
def test_claim(number, scale):
    script = scripts()[number]
    claim = load(script)
    assert (claim.number, claim.slug, claim.title, claim.paper) == (
        script.number, script.slug, script.title, script.paper
    )  # fmt: skip
    assert script.path.name.startswith(f"c{number:02d}_")
    result = run_claim(claim, scale)
    outcome = result.outcome
    assert all(outcome.checks[name] for name in claim.robust), report(result)
    assert all(outcome.sanity.values()), report(result)
    assert outcome.summary
    assert outcome.limits
    assert outcome.pictures
    assert all(picture.figure.data for picture in outcome.pictures)
    assert len({picture.name for picture in outcome.pictures}) == len(outcome.pictures)
    assert claim.title in page_text(result, [f"{p.name}.png" for p in outcome.pictures])


@pytest.mark.parametrize("number", scripts(), ids=lambda number: f"c{number:02d}")
def test_the_first_trainings_of_full_size_can_be_made(number, tmp_path, monkeypatch):
    class Begun(Exception):
        pass

    def begin(function, jobs, *rest, **options):
        raise Begun(len(jobs))

    monkeypatch.setattr("looplens.gallery.parallel._run", begin)
    with pytest.raises(Begun) as begun:  # settings that cannot train are refused before
        load(scripts()[number]).run(Scale(name="full", folder=tmp_path, quiet=True))
    assert begun.value.args[0] >= 5  # seeds
