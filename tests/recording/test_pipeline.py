"""Blocks overlap in time and never in memory, and what goes wrong on either side is told."""

import contextlib
import threading
import time

import numpy as np
import pytest
import torch
from crashing import OPTIONS, PROMPTS, files_of, make_model

import looplens as ll
from looplens.errors import StoreError
from looplens.recording.streaming import blocks, staging
from looplens.recording.streaming.batches import batches
from looplens.store import RunWriter
from looplens.store.format.blocks import prompts_of_block

SMALL = {**OPTIONS, "iterations": 4, "attention": [0, 7], "readout": 2}


def test_a_slow_disk_gets_the_same_numbers(tmp_path, monkeypatch):
    ll.record(make_model(), PROMPTS, out=tmp_path / "fast", **SMALL)
    write, threads = RunWriter.write_block, set()

    def slowly(self, *block):
        time.sleep(0.02)  # long enough for the forwards to run ahead
        threads.add(threading.current_thread().name)
        write(self, *block)

    monkeypatch.setattr(RunWriter, "write_block", slowly)
    ll.record(make_model(), PROMPTS, out=tmp_path / "slow", **SMALL)
    assert files_of(tmp_path / "slow") == files_of(tmp_path / "fast")
    assert threads == {"looplens-writer"}


def test_a_prompt_may_be_longer_than_many_blocks(tmp_path):
    options = {"iterations": 4, "progress": False}
    prompts = ["1234567890" * 3, "12", "9876543210" * 3, "5"]
    whole = ll.record(make_model(), prompts, out=tmp_path / "whole", **options)
    short = ll.record(make_model(), prompts, out=tmp_path / "short", block_tokens=4, **options)
    assert short.n_blocks == 16
    # Other batches are other matrix products: on some processors the last bits differ.
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(short.state(), whole.state(), **close)
    np.testing.assert_allclose(short.site(), whole.site(), **close)
    for name in whole.readout:
        np.testing.assert_allclose(short.readout[name], whole.readout[name], **close)


def test_copies_from_a_device_go_through_two_sets_of_buffers(tmp_path, monkeypatch):
    """The bookkeeping of the copies, with streams and events that do everything at once."""
    ll.record(make_model(), PROMPTS, out=tmp_path / "host", **SMALL)

    class Stream:
        def __init__(self, device=None):
            self.waited = 0

        def wait_stream(self, other):
            pass

        def wait_event(self, event):
            self.waited += 1
            assert event.recorded

    class Event:
        recorded = False

        def record(self, stream):
            self.recorded = True

        def synchronize(self):
            assert self.recorded

    stream = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
    monkeypatch.setattr(staging, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
    monkeypatch.setattr(blocks, "staging_for", staging.DeviceStaging)
    run = ll.record(make_model(), PROMPTS, out=tmp_path / "device", **SMALL)
    assert files_of(tmp_path / "device") == files_of(tmp_path / "host")
    assert stream.waited == run.n_blocks - 6  # every place but the first six was used before


@pytest.mark.parametrize("where", ["writing", "computing"])
def test_what_fails_is_raised_and_what_was_committed_stays(where, tmp_path, monkeypatch):
    ll.record(make_model(), PROMPTS, out=tmp_path / "whole", **SMALL)
    model, out = make_model(), tmp_path / "run"
    with monkeypatch.context() as patch:
        if where == "writing":
            write = RunWriter.write_block

            def failing(self, block, *rest):
                if block == 5:
                    raise StoreError("the disk is on fire")
                write(self, block, *rest)

            patch.setattr(RunWriter, "write_block", failing)
        else:
            loop, calls = model.iterate, iter(range(1000))

            def broken(*given):
                if next(calls) == 20:
                    raise StoreError("the disk is on fire")
                return loop(*given)

            patch.setattr(model, "iterate", broken)
        with pytest.raises(StoreError, match="on fire"):
            ll.record(model, PROMPTS, out=out, **SMALL)
    assert "looplens-writer" not in {thread.name for thread in threading.enumerate()}
    run = ll.open_run(out)
    assert not run.complete
    assert len(run.committed) >= 2
    assert not list(out.glob("blocks/*.claim"))
    ll.record(make_model(), PROMPTS, out=out, resume=True, **SMALL)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_block_is_computed_in_the_same_batches_by_whoever_records_it():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 200).tolist()
    counts = np.array(lengths)
    parts = prompts_of_block(np.cumsum(counts) - counts, counts, 32, int(counts.sum()))
    everything = range(len(parts))

    def forwards(todo):
        """Return, for each block, which prompts ran together to fill it."""
        found = {block: set() for block in todo}
        for _, group in batches(parts, todo, lengths, {3, 50}, lambda length, maps: 3):
            for batch in group:
                for block in batch.blocks:
                    found[block].add((batch.prompts, batch.attention))
        return found

    once = forwards(everything)
    for block, part in enumerate(parts):
        ran = [prompt for prompts, _ in once[block] for prompt in prompts]
        here = {*part.own} | ({part.entering} - {None})
        assert sorted(ran) == sorted(here)
    for todo in ([0], [7, 8, 9], [len(parts) - 1], rng.permutation(everything)[:40].tolist()):
        assert forwards(sorted(todo)) == {block: once[block] for block in todo}
