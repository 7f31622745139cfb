"""Each wrong participant, the rule that it breaks, and the checks that must notice, those and no other."""

from __future__ import annotations

from dataclasses import dataclass

from participant_sdk.resources.memory import MemoryResource
from tests.conformance import wrong_resources as resources
from tests.conformance import wrong_services as services
from tests.conformance.hosts import ASKED_WITHIN_S, DOUBTS, Bank, Serve, by_the_sdk
from tests.conformance.serve import UnaryServicer, served

# How long one that never asks is waited for, in each of two rounds: a right one would ask within a second.
NEVER_ASKED_S = 3.0


@dataclass(frozen=True, slots=True)
class Wrong:
    """One wrong participant: what it is made of, the rule it breaks, and the checks that fail for it."""

    name: str
    rule: str
    fails: tuple[str, ...]
    kind: type[MemoryResource] = Bank
    serve: Serve = by_the_sdk
    asked_within_s: float = ASKED_WITHIN_S


def _kept(kind: type[MemoryResource], rule: str, *fails: str) -> Wrong:
    """By unary calls alone, which takes half the time."""
    return Wrong(kind.__name__, rule, fails, kind, served(servicer=UnaryServicer))


def _over_sessions(kind: type[MemoryResource], rule: str, *fails: str) -> Wrong:
    return Wrong(kind.__name__, rule, fails, kind)


def _at_the_door(servicer: type[UnaryServicer], rule: str, *fails: str) -> Wrong:
    return Wrong(servicer.__name__, rule, fails, serve=served(servicer=servicer))


def _of_logs(logs: type[services.KnownLogs], rule: str, *fails: str) -> Wrong:
    return Wrong(logs.__name__, rule, fails, serve=served(servicer=UnaryServicer, logs=logs))


def _in_doubt(coordinators: type[services.Coordinators], rule: str, *fails: str) -> Wrong:
    return Wrong(
        coordinators.__name__,
        rule,
        fails,
        serve=served(servicer=UnaryServicer, coordinators=coordinators),
        asked_within_s=NEVER_ASKED_S if fails == DOUBTS else ASKED_WITHIN_S,
    )


# What it keeps, promises, and does to a branch.
RESOURCES = (
    _kept(resources.ForgetsVotes, "R8", "votes survive a kill"),
    _kept(resources.ForgetsNoes, "R8", "noes survive a kill"),
    _kept(resources.ForgetsTombstones, "R10", "tombstones survive a kill"),
    _kept(resources.AcknowledgesBeforeTheEffect, "R9", "acknowledgements survive a kill"),
    _kept(resources.ForgetsEpochs, "R15", "the epoch survives a kill"),
    _kept(resources.ForgetsWatermarks, "R15", "watermarks survive a kill"),
    _kept(resources.ForgetsHands, "R12", "an operators hand survives a kill"),
    _over_sessions(
        resources.TakesUnknownCommits,
        "R11",
        "commit of an unknown branch is a hazard",
        "calls in any order follow the table",
        "a log is shown its own branches",
        "a frame may carry all parts",
    ),
    _over_sessions(
        resources.LeavesNoTombstone,
        "R10",
        "a late prepare meets the tombstone",
        "calls in any order follow the table",
        "only what ended below the horizon is dropped",
        "tombstones survive a kill",
        "a frame may carry all parts",
    ),
    _kept(resources.PostsTwice, "R10", "a commit takes effect once", "commits at once take effect once"),
    _kept(resources.LosesCommits, "R9", "a commit takes effect", "work done is prepared and committed"),
    _over_sessions(resources.RunsAgain, "R8", "a duplicate gets the stored vote"),
    _over_sessions(resources.FailsTheBatch, "R17", "one bad branch fails nothing else"),
    _over_sessions(resources.IgnoresTheCount, "R13", "another count or number is xaer nota"),
    _kept(
        resources.PreparesNothing,
        "R13",
        "work that was never done is xaer nota",
        "another count or number is xaer nota",
        "work ends with its deadline",
    ),
    _kept(resources.KeepsWorkForEver, "R13", "work ends with its deadline"),
    _kept(resources.LetsTwinsIn, "R3", "another live branch of a request is transient"),
    _over_sessions(resources.CountsFromTheBeginning, "R16", "time counts from arrival"),
    _over_sessions(
        resources.MixesLogs, "R18", "one xid under two logs is two branches", "a log is shown its own branches"
    ),
    _kept(resources.ReportsTheLastSequence, "R15", "watermarks are the highest of each incarnation"),
    _kept(resources.ReportsWhatItIsTold, "R15", "watermarks keep step with commits"),
    _kept(resources.ForgetsTheHandItself, "R12", "a forced branch is told until it is forgotten"),
    _kept(resources.ForcesWhatHasEnded, "R12", "a known end is not forced"),
    _kept(resources.DropsTheReason, "R12", "a forced branch is shown with its reason"),
    _kept(resources.DropsAboveTheHorizon, "R14", "only what ended below the horizon is dropped"),
    _kept(resources.SaysNoWithoutAReason, "R3", "a no is rolled back with its reason"),
)

# What it says at its door, with which epochs, clocks and deadlines.
DOORS = (
    _at_the_door(
        services.StatusForANo,
        "R19",
        "no status tells a vote",
        "a no is rolled back with its reason",
        "a duplicate gets the stored vote",
        "one bad branch fails nothing else",
        "noes survive a kill",
    ),
    _at_the_door(services.ForcesWithoutAReason, "R12", "a hand needs a reason"),
    _at_the_door(services.ForcesAtAPreview, "R12", "a forced branch is shown with its reason"),
    _at_the_door(services.OddCodes, "R2", "every answer is a word of the contract"),
    _at_the_door(
        services.HidesItsDoubts,
        "R15",
        "recovery lists what is in doubt",
        "a forced branch is told until it is forgotten",
        "votes survive a kill",
    ),
    _at_the_door(
        services.NeverTheLastPage,
        "R15",
        "recovery lists what is in doubt",
        "finished branches are listed above the sequences",
    ),
    _at_the_door(services.AnyPageSize, "R17", "a question with a bad field is refused"),
    Wrong(
        "IgnoresEpochs",
        "R15",
        ("a lower epoch is refused", "the epoch survives a kill"),
        serve=served(logs=services.IgnoresEpochs),
    ),
    _of_logs(services.BelievesEveryEpoch, "R15", "an implausible epoch is refused"),
    _of_logs(services.BelievesEveryHorizon, "R14", "a young horizon is not believed"),
    _of_logs(services.IgnoresClocks, "R10", "clocks apart are refused"),
    Wrong(
        "VotesAfterTheDeadline",
        "R16",
        ("no yes leaves after the deadline",),
        serve=served(workers_clock=services.StoppedClock()),
    ),
    Wrong("TakesOldXids", "R10", ("an old xid is refused",), serve=served(workers=services.TakesOldXids)),
)

# What it does in doubt.
INQUIRIES = (
    _in_doubt(services.NeverAsks, "R12", *DOUBTS),
    _in_doubt(services.DecidesAlone, "R12", *DOUBTS),
    _in_doubt(services.TakesPendingForRollback, "R12", "in doubt it waits while nothing is decided"),
    _in_doubt(services.TakesForgottenForRollback, "R12", "in doubt it stays when the log forgot"),
    _in_doubt(services.FollowsOlderEpochs, "R15", "in doubt it does not follow an older epoch"),
    _in_doubt(services.AsksOneCoordinator, "R12", "in doubt it asks on after errors"),
    _in_doubt(services.NamesNobody, "R15", "an inquiry says who asks and what"),
)
