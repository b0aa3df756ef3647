"""Run a looped model and keep what its loop does: in memory or on disk."""

from looplens.recording.prompts import as_prompts
from looplens.recording.recorder import record
from looplens.recording.tracing import Trace, trace

__all__ = ["Trace", "as_prompts", "record", "trace"]
