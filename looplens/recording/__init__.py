"""Run a looped model and keep what its loop does, left alone or changed: in memory or on disk."""

from looplens.recording.changing.applying import applied, check_interventions, hooks_for
from looplens.recording.changing.interventions import Intervention
from looplens.recording.planning import RecordingPlan
from looplens.recording.prompts import as_prompts
from looplens.recording.recorder import record
from looplens.recording.tracing import Trace, trace

__all__ = [
    "Intervention",
    "RecordingPlan",
    "Trace",
    "applied",
    "as_prompts",
    "check_interventions",
    "hooks_for",
    "record",
    "trace",
]
