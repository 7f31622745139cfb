"""Mutants of how a decision is made and told: the transaction, its branches, its participants' memory."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Seeds

MUTANTS: Final = (
    Mutant(
        "COMMIT_SENT_EARLY",
        "R1: Commit leaves before the decision is durable",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        return Step(record=record)\n",
                "        return Step(record=record, messages=self._owed_messages(Verb.COMMIT))\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "TOLD_EARLY",
        "R1: the client hears of COMMIT before it is durable",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        return Step(record=record)\n",
                "        return Step(record=record, reply=Outcome(self.xid, Decision.COMMIT, self.phase))\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "VOTE_BEFORE_FLUSH",
        "R8: a vote leaves before the branch is durable",
        (
            Patch(
                "participant_sdk/resources/memory.py",
                "        await self._store.flush()\n        return Answers(",
                "        if work.commits or work.rollbacks:\n            await self._store.flush()\n        return Answers(",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "SILENCE_IS_YES",
        "R2: the deadline is taken as a yes",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "                return self._time_out(now_s)\n",
                "                return self._decide()\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "NO_TOMBSTONE",
        "R10: a Prepare after its Rollback is accepted",
        (
            Patch(
                "participant_sdk/branch.py",
                "    (_P.NONE, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),\n",
                "    (_P.NONE, _C.ROLLBACK): Transition(_P.NONE, DONE),\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "ROLLBACK_WHILE_LIVE",
        "R7: an inquiry answers ROLLBACK while the incarnation lives",
        (
            Patch(
                "coordinator/log/inquiry.py",
                "    if not ended:\n        return DecisionState.PENDING\n",
                "    if not ended:\n        return DecisionState.ROLLBACK\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "DECIDES_ALONE",
        "R12: a branch in doubt rolls itself back",
        (
            Patch(
                "participant_sdk/inquiry.py",
                "                # The owner lives and has not decided: the others would say the same.\n                return None\n",
                "                return DecisionAnswer(DecisionState.ROLLBACK, epoch=answer.epoch)\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "NO_FENCE",
        "R4: a fenced incarnation writes on",
        (
            Patch(
                "coordinator/log/memory_store.py",
                "        if row.fenced_by is not None:\n            return AppendStatus.FENCED\n",
                "",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "UNKNOWN_WRITE_IS_DONE",
        "R5: a write of unknown result is taken as done",
        (
            Patch(
                "coordinator/log/appends.py",
                "            appended = await self._log.append(self._incarnation, self._sequence, batch)\n",
                "            try:\n                appended = await self._log.append(self._incarnation, self._sequence, batch)\n            except LogUncertainError:\n                appended = Appended(AppendStatus.WRITTEN, self._sequence + len(batch))\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "REDO_SKIPPED",
        "R6: recovery skips decided commits",
        (
            Patch(
                "coordinator/recovery.py",
                "        for transaction in driven:\n",
                "        for transaction in driven[:0]:\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "BINDING_NOT_RECORDED",
        "R3: a business no is told and not bound",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        if binds and (self.request is not None or bare):\n",
                "        if binds and bare:\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "RETRY_BINDS",
        "R3: a transient rollback is told for good",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        self._retry = not binds\n",
                "        self._retry = False\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "FINISHED_EARLY",
        "R14: a decision counts as finished before every branch acknowledged",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        step.finished = all_done and self.answer.is_free\n",
                "        step.finished = self.answer.is_free and self.answer.given\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "MAJORITY_DECIDES",
        "R2: one vote of no does not roll back",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        if not vote.is_yes:\n",
                "        if not vote.is_yes and len(self.branches) < 3:\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "UNKNOWN_WRITE_IS_FAILED",
        "R5: a write of unknown result is taken as failed",
        (
            Patch(
                "coordinator/log/appends.py",
                "            self._uncertain |= bool(batch) and isinstance(error, LogUncertainError)\n",
                "",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "RETRY_WITHOUT_LOOKUP",
        "R3: a client is told to send again without a look at the log",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "        if self.request is not None and not binds:\n",
                "        if self.request is not None and binds is None:\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "ACKNOWLEDGED_BEFORE_FLUSH",
        "R9: an acknowledgement leaves before the effect is durable",
        (
            Patch(
                "participant_sdk/resources/memory.py",
                "        await self._store.flush()\n        return Answers(",
                "        if work.prepares:\n            await self._store.flush()\n        return Answers(",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "READ_ONLY_TOLD_COMMIT",
        "R2: a branch that voted READ_ONLY is told COMMIT",
        (
            Patch(
                "coordinator/protocol/branches.py",
                "if b.vote is not None and b.vote.kind is VoteKind.PREPARED])\n",
                "if b.vote is not None and b.vote.is_yes])\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "NEVER_ASKS",
        "R12: a branch in doubt does not ask",
        (
            Patch(
                "participant_sdk/inquiry.py",
                "                if now_s >= doubt.ask_at_s:\n",
                "                if now_s < 0:\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
    Mutant(
        "CLIENT_DEADLINE_IN_PHASE_TWO",
        "R16: a deadline rolls back while DECIDING",
        (
            Patch(
                "coordinator/protocol/transaction.py",
                "            case Phase.COMMITTING | Phase.ROLLING_BACK:\n                return self._resend(now_s)\n",
                "            case Phase.DECIDING:\n                self.phase = Phase.PREPARING\n                return self._time_out(now_s)\n            case Phase.COMMITTING | Phase.ROLLING_BACK:\n                return self._resend(now_s)\n",
            ),
        ),
        (Seeds(1, 40),),
    ),
)
