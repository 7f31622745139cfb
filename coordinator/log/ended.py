"""Why an incarnation may not write any more. Its process stops; a new one draws a new incarnation.

IncarnationEndedError
├── FencedError           another coordinator, or a new timeline, ended it
├── LogTailLostError      the log forgot what it had confirmed; it is in HOLD
└── SequenceBrokenError   the log and this process disagree in a way that only a defect explains
"""

from __future__ import annotations


class IncarnationEndedError(Exception):
    """The root. Nothing that was still open was reported; its successor settles it."""


class FencedError(IncarnationEndedError):
    """The incarnation is fenced, or its timeline is over (R4)."""


class LogTailLostError(IncarnationEndedError):
    """The log's sequence went back, or the incarnation's row is gone (R15)."""


class SequenceBrokenError(IncarnationEndedError):
    """An answer that cannot be: going on would risk a second outcome."""
