"""Defects made on purpose: small patches of the product's text, which the seeds must notice.

    python -m tests.simulation.mutations                 each of them, in a process of its own
    python -m tests.simulation.mutations COMMIT_SENT_EARLY --seeds 20

A patch lives in the process that asked for it and nowhere else (``tests/patching.py``). One whose
text is not there exactly once fails: the product moved on.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from typing import Final, NamedTuple, cast

from tests import patching

SEEDS: Final = 40
# Not 1, which is Python's own for an exception.
EXIT_NOTICED: Final = 3
EXIT_SURVIVED: Final = 0


class Mutation(NamedTuple):
    """One patch of one module, and the rule that it breaks."""

    name: str
    rule: str
    module: str
    before: str
    after: str


MUTATIONS: Final = (
    Mutation(
        "COMMIT_SENT_EARLY",
        "R1: Commit leaves before the decision is durable",
        "coordinator.protocol.transaction",
        "        return Step(record=record)\n",
        "        return Step(record=record, messages=self._owed_messages(Verb.COMMIT))\n",
    ),
    Mutation(
        "TOLD_EARLY",
        "R1: the client hears of COMMIT before it is durable",
        "coordinator.protocol.transaction",
        "        return Step(record=record)\n",
        "        return Step(record=record, reply=Outcome(self.xid, Decision.COMMIT, self.phase))\n",
    ),
    Mutation(
        "VOTE_BEFORE_FLUSH",
        "R8: a vote leaves before the branch is durable",
        "participant_sdk.resources.memory",
        "        await self._store.flush()\n        return Answers(",
        "        if work.commits or work.rollbacks:\n            await self._store.flush()\n        return Answers(",
    ),
    Mutation(
        "SILENCE_IS_YES",
        "R2: the deadline is taken as a yes",
        "coordinator.protocol.transaction",
        "                return self._time_out(now_s)\n",
        "                return self._decide()\n",
    ),
    Mutation(
        "NO_TOMBSTONE",
        "R10: a Prepare after its Rollback is accepted",
        "participant_sdk.branch",
        "    (_P.NONE, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),\n",
        "    (_P.NONE, _C.ROLLBACK): Transition(_P.NONE, DONE),\n",
    ),
    Mutation(
        "ROLLBACK_WHILE_LIVE",
        "R7: an inquiry answers ROLLBACK while the incarnation lives",
        "coordinator.log.inquiry",
        "    if not ended:\n        return DecisionState.PENDING\n",
        "    if not ended:\n        return DecisionState.ROLLBACK\n",
    ),
    Mutation(
        "DECIDES_ALONE",
        "R12: a branch in doubt rolls itself back",
        "participant_sdk.inquiry",
        "                # The owner lives and has not decided: the others would say the same.\n"
        "                return None\n",
        "                return DecisionAnswer(DecisionState.ROLLBACK, epoch=answer.epoch)\n",
    ),
    Mutation(
        "NO_FENCE",
        "R4: a fenced incarnation writes on",
        "coordinator.log.memory_store",
        "        if row.fenced_by is not None:\n            return AppendStatus.FENCED\n",
        "",
    ),
    Mutation(
        "UNKNOWN_WRITE_IS_DONE",
        "R5: a write of unknown result is taken as done",
        "coordinator.log.appends",
        "            appended = await self._log.append(self._incarnation, self._sequence, batch)\n",
        "            try:\n"
        "                appended = await self._log.append(self._incarnation, self._sequence, batch)\n"
        "            except LogUncertainError:\n"
        "                appended = Appended(AppendStatus.WRITTEN, self._sequence + len(batch))\n",
    ),
    Mutation(
        "REDO_SKIPPED",
        "R6: recovery skips decided commits",
        "coordinator.recovery",
        "        for transaction in driven:\n",
        "        for transaction in driven[:0]:\n",
    ),
    Mutation(
        "BINDING_NOT_RECORDED",
        "R3: a business no is told and not bound",
        "coordinator.protocol.transaction",
        "        if binds and (self.request is not None or bare):\n",
        "        if binds and bare:\n",
    ),
    Mutation(
        "RETRY_BINDS",
        "R3: a transient rollback is told for good",
        "coordinator.protocol.transaction",
        "        self._retry = not binds\n",
        "        self._retry = False\n",
    ),
    Mutation(
        "FINISHED_EARLY",
        "R14: a decision counts as finished before every branch acknowledged",
        "coordinator.protocol.transaction",
        "        step.finished = all_done and self.answer.is_free\n",
        "        step.finished = self.answer.is_free and self.answer.given\n",
    ),
    Mutation(
        "MAJORITY_DECIDES",
        "R2: one vote of no does not roll back",
        "coordinator.protocol.transaction",
        "        if not vote.is_yes:\n",
        "        if not vote.is_yes and len(self.branches) < 3:\n",
    ),
    Mutation(
        "UNKNOWN_WRITE_IS_FAILED",
        "R5: a write of unknown result is taken as failed",
        "coordinator.log.appends",
        "            self._uncertain |= bool(batch) and isinstance(error, LogUncertainError)\n",
        "",
    ),
    Mutation(
        "RETRY_WITHOUT_LOOKUP",
        "R3: a client is told to send again without a look at the log",
        "coordinator.protocol.transaction",
        "        if self.request is not None and not binds:\n",
        "        if self.request is not None and binds is None:\n",
    ),
    Mutation(
        "ACKNOWLEDGED_BEFORE_FLUSH",
        "R9: an acknowledgement leaves before the effect is durable",
        "participant_sdk.resources.memory",
        "        await self._store.flush()\n        return Answers(",
        "        if work.prepares:\n            await self._store.flush()\n        return Answers(",
    ),
    Mutation(
        "READ_ONLY_TOLD_COMMIT",
        "R2: a branch that voted READ_ONLY is told COMMIT",
        "coordinator.protocol.branches",
        "if b.vote is not None and b.vote.kind is VoteKind.PREPARED])\n",
        "if b.vote is not None and b.vote.is_yes])\n",
    ),
    Mutation(
        "NEVER_ASKS",
        "R12: a branch in doubt does not ask",
        "participant_sdk.inquiry",
        "                if now_s >= doubt.ask_at_s:\n",
        "                if now_s < 0:\n",
    ),
    Mutation(
        "CLIENT_DEADLINE_IN_PHASE_TWO",
        "R16: a deadline rolls back while DECIDING",
        "coordinator.protocol.transaction",
        "            case Phase.COMMITTING | Phase.ROLLING_BACK:\n                return self._resend(now_s)\n",
        "            case Phase.DECIDING:\n"
        "                self.phase = Phase.PREPARING\n"
        "                return self._time_out(now_s)\n"
        "            case Phase.COMMITTING | Phase.ROLLING_BACK:\n                return self._resend(now_s)\n",
    ),
)


def run_mutated(mutation: Mutation, seeds: int, start: int) -> int:
    """Run seeds on the mutated product, in this process, until one notices."""
    patching.install({mutation.module: patching.replacing(mutation.name, mutation.before, mutation.after)})
    seeds_module = importlib.import_module("tests.simulation.seeds")
    faults = importlib.import_module("tests.simulation.faults")
    for seed in range(start, start + seeds):
        violations = cast("tuple[str, ...]", seeds_module.run_once(faults.draw(seed)).violations)
        if violations:
            print(f"{mutation.name}: noticed by seed {seed}: {violations[0]}")
            return EXIT_NOTICED
    print(f"{mutation.name}: survived {seeds} seeds ({mutation.rule})")
    return EXIT_SURVIVED


def main() -> int:
    """Run one mutation here, or all of them, each in a process; 0 when every one asked for was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations")
    parser.add_argument("name", nargs="?", choices=[mutation.name for mutation in MUTATIONS])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--start", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.name:
        mutation = next(mutation for mutation in MUTATIONS if mutation.name == arguments.name)
        return run_mutated(mutation, arguments.seeds, arguments.start)
    survivors = [mutation.name for mutation in MUTATIONS if run_apart(mutation, arguments.seeds) != EXIT_NOTICED]
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutations noticed; survivors: {survivors or 'none'}")
    return 1 if survivors else 0


def run_apart(mutation: Mutation, seeds: int) -> int:
    """Run one mutation in a process of its own; its exit code."""
    command = [sys.executable, "-m", "tests.simulation.mutations", mutation.name, "--seeds", str(seeds)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
