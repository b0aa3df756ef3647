import pytest

from looplens.errors import SiteError
from looplens.loops import LoopClock, SiteAddress, match_sites
from looplens.loops.clock import FiringCounts

NAMES = [
    "hook_embed",
    "prelude.0.attn.hook_pattern",
    "core.0.hook_resid_post",
    "core.1.hook_resid_post",
    "core.0.attn.hook_pattern",
    "coda.0.hook_resid_post",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("core.0.hook_resid_post", ["core.0.hook_resid_post"]),
        ("core.*.hook_resid_post", ["core.0.hook_resid_post", "core.1.hook_resid_post"]),
        ("attn.hook_pattern", ["prelude.0.attn.hook_pattern", "core.0.attn.hook_pattern"]),
        ("core.**", [name for name in NAMES if name.startswith("core")]),
        ("**", NAMES),
    ],
)
def test_patterns_match_dotted_names(text, found):
    assert match_sites(SiteAddress.parse(text), NAMES) == found


def test_a_star_does_not_cross_a_dot():
    assert not SiteAddress.parse("core.*").matches_site("core.0.hook_resid_post")


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("x@7", {7}),
        ("x@-1", {8}),
        ("x@4:", {4, 5, 6, 7, 8}),
        ("x@:3", {1, 2}),
        ("x@2:5", {2, 3, 4}),
        ("x@::3", {1, 4, 7}),
        ("x@-2:", {7, 8}),
        ("x@*", set(range(1, 9))),
        ("x@9", set()),
    ],
)
def test_iterations_are_counted_from_one(text, passes):
    address = SiteAddress.parse(text)
    assert {t for t in range(1, 12) if address.matches_iteration(t, 8)} & set(range(1, 9)) == passes


def test_an_address_with_passes_never_means_a_firing_outside_the_loop():
    assert not SiteAddress.parse("x@*").matches_iteration(None, 8)
    assert SiteAddress.parse("x").matches_iteration(None, 8)


@pytest.mark.parametrize(
    "text", ["", "@3", "x@", "x@a", "x@1:2:0", "x@1-3", "x@2:-", "x@-:3", "x@-"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SiteError, match="expected"):
        SiteAddress.parse(text)


def test_an_unknown_site_lists_near_matches():
    with pytest.raises(SiteError, match=r"matches no hook point.*core\.0\.hook_resid_post"):
        match_sites(SiteAddress.parse("core.0.hook_resid_pst"), NAMES)


def test_firing_counts_name_site_and_both_numbers():
    fired = FiringCounts()
    for _ in range(3):
        fired.fired("a")
    fired.fired("c")
    with pytest.raises(SiteError, match=r"a: expected 4 firings, saw 3; b: .*saw 0; c: not decl"):
        fired.check({"a": 4, "b": 1})
    fired.check({})  # a check starts the counts anew


def test_the_clock_restores_what_it_was():
    clock = LoopClock()
    with clock.forward(4), clock.at(2):
        with clock.at(3):
            assert (clock.iteration, clock.iterations) == (3, 4)
        assert clock.iteration == 2
    assert (clock.iteration, clock.iterations) == (None, None)
