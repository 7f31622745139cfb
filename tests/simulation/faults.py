"""The kinds of fault, how many of each happened, and the mix that one seed draws."""

from __future__ import annotations

from collections import Counter
from enum import Enum


class Fault(Enum):
    """A kind of fault. The name is how a mix is printed and shrunk."""

    # The network.
    SLOW_FRAME = "a frame takes seconds"
    DROP = "a frame is lost on a living stream"
    DUPLICATE = "a frame arrives twice"
    REORDER = "a frame overtakes another"
    BREAK = "a stream breaks, and both sides hear of it"
    HALF_OPEN = "a stream breaks, and one side hears of it much later"
    CUT_ONE_WAY = "nothing passes from one host to another"
    CUT_BOTH_WAYS = "nothing passes between two hosts"
    CALL_LOST = "a call is lost before it is served"
    REPLY_LOST = "a call is served, and its reply is lost"
    # Processes.
    CRASH_COORDINATOR = "a coordinator is killed"
    CRASH_PARTICIPANT = "a participant is killed"
    CRASH_AT_STEP = "a process is killed at a chosen step of its own"
    CRASH_IN_FLUSH = "a process is killed while its store or log flushes"
    PAUSE_COORDINATOR = "a coordinator is stopped for a while"
    PAUSE_PARTICIPANT = "a participant is stopped for a while"
    CLOCK_SKEW = "a process's wall clock is seconds off"
    # The log.
    LOG_SLOW = "a statement of the log takes 300 ms or 2 s"
    LOG_FAILED = "a statement of the log fails, and did nothing"
    LOG_ANSWER_LOST = "a statement of the log is done, and its answer is lost"
    LOG_LATE = "a statement of the log whose answer was lost is done a little later"
    LOG_OUTAGE = "the log cannot be reached for seconds"
    # A participant's store.
    STORE_SLOW = "a flush of a store takes 300 ms or 2 s"
    STORE_FAILED = "a local transaction of a store fails"
    # Clients.
    CLIENT_REPEATS = "a client sends a request_id again while the first may be under way"
    CLIENT_GIVES_UP = "a client stops waiting"


Tally = Counter[Fault]


NETWORK = (
    Fault.SLOW_FRAME,
    Fault.DROP,
    Fault.DUPLICATE,
    Fault.REORDER,
    Fault.BREAK,
    Fault.HALF_OPEN,
    Fault.CUT_ONE_WAY,
    Fault.CUT_BOTH_WAYS,
    Fault.CALL_LOST,
    Fault.REPLY_LOST,
)
