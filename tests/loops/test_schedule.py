import pytest

from looplens.errors import InputError, SiteError
from looplens.loops import Loop, LoopSpec, Tap
from looplens.loops.schedule import Firing, Schedule

NEST = Loop("h", 2, inner=Loop("l", 3))


def spec(**changes) -> LoopSpec:
    values = {"loop": NEST, "layers": {"l": ["fast"], "h": ["slow"]}}
    return LoopSpec(**(values | changes))


def test_the_outermost_loop_is_the_axis_unless_told_otherwise():
    schedule = Schedule(spec())
    assert schedule.layers == (
        ("fast", {"l": 1}),
        ("fast", {"l": 2}),
        ("fast", {"l": 3}),
        ("slow", {}),
    )
    assert schedule.default_iterations() == 2
    assert schedule.coordinates(3) == [{"h": 1}, {"h": 2}, {"h": 3}]
    assert schedule.of_layer("fast") == [Firing(1, 0), Firing(1, 1), Firing(1, 2)]
    assert schedule.of_layer("slow") == [Firing(1, 3)]


def test_the_innermost_loop_enumerates_all_passes_in_time_order():
    schedule = Schedule(spec(axis="l"))
    assert schedule.layers == (("fast", {}),)
    assert schedule.default_iterations() == 6
    assert schedule.coordinates(6)[2:4] == [{"h": 1, "l": 3}, {"h": 2, "l": 1}]
    assert schedule.of_layer("fast") == [Firing(1, 0), Firing(2, 0), Firing(3, 0)]
    # runs between iterations of the axis, so no iteration holds it; it is counted all the same
    assert schedule.of_layer("slow") == [None]
    with pytest.raises(InputError, match=r"iterations=4 .*each holds 3 iterations \(l 3\)"):
        schedule.outer_count(4)


def test_a_module_that_two_loops_run_fires_for_both():
    schedule = Schedule(spec(layers={"l": ["net"], "h": ["net"]}))
    assert [firing.layer for firing in schedule.of_layer("net")] == [0, 1, 2, 3]
    # its last firing in a pass is the state after the pass
    assert schedule.of_state(Tap("net"), ["h"]) == [None, None, None, Firing(1, 0)]


def test_counts_are_compared_with_the_declaration():
    promised = {"fast": 3, "slow": 1}
    schedule = Schedule(spec())
    assert schedule.outer_passes_run({"fast": 6, "slow": 2}, promised, 2) == 2
    with pytest.raises(SiteError, match=r"\(h 2 x l 3\): fast: expected 6 firings, saw 8\."):
        schedule.outer_passes_run({"fast": 8, "slow": 2}, promised, 2)
    with pytest.raises(SiteError, match="slow: expected 2 firings, saw 0"):
        schedule.outer_passes_run({"fast": 6, "slow": 0}, promised, 2)
    with pytest.raises(SiteError, match="left the loop 'h' after 1 of its passes"):
        schedule.outer_passes_run({"fast": 3, "slow": 1}, promised, 2)
    leaves = Schedule(spec(exits_early=True))
    assert leaves.outer_passes_run({"fast": 3, "slow": 1}, promised, 2) == 1
    with pytest.raises(SiteError, match="fast: expected 6 firings, saw 4"):
        leaves.outer_passes_run({"fast": 4, "slow": 1}, promised, 2)
