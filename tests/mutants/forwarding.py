"""Mutants of calls that go to the owner of an xid: whose they are, and what an owner's silence says (R7, R16, R19)."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch, Test, single

MUTANTS: Final = (
    single(
        "FORWARDED_AGAIN",
        "R19: a call that was forwarded is passed on",
        "coordinator/api/grpc_forwarding.py",
        "    if is_forwarded_here(gate, context):\n        return None\n    try:\n        return await",
        "    is_forwarded_here(gate, context)\n    try:\n        return await",
        Test("tests/api/test_peers.py::test_a_forwarded_call_is_not_forwarded_again"),
    ),
    single(
        "TAKEN_FOR_ANOTHER",
        "R19: a call that was meant for another incarnation is answered",
        "coordinator/peers.py",
        "        if (meant, metadata.get(LOG_ID_KEY)) != (str(self._own.number), self._own.log_id):\n",
        "        if metadata.get(LOG_ID_KEY) != self._own.log_id:\n",
        Test("tests/api/test_peers.py::test_a_call_forwarded_to_another_incarnation_is_refused_and_not_executed"),
    ),
    single(
        "TAKEN_FOR_ANOTHER_LOG",
        "R18: a call that was meant for a coordinator of another log is answered",
        "coordinator/peers.py",
        "        if (meant, metadata.get(LOG_ID_KEY)) != (str(self._own.number), self._own.log_id):\n",
        "        if meant != str(self._own.number):\n",
        Test("tests/api/test_peers.py::test_a_call_forwarded_to_another_incarnation_is_refused_and_not_executed"),
    ),
    single(
        "SILENT_OWNER_SPOKEN_FOR",
        "R19: an owner that does not answer is spoken for before it is fenced",
        "coordinator/peers.py",
        "        if failed.code in _SAYS_NOTHING and await self._is_over(xid):\n",
        "        if failed.code in _SAYS_NOTHING:\n",
        Test("tests/api/test_peers.py::test_a_lost_reply_is_no_answer"),
    ),
    single(
        "LIVING_OWNER_SPOKEN_FOR",
        "R19: an owner that takes its time is spoken for while it lives",
        "coordinator/peers.py",
        "        is_over = state is None or state.fenced\n",
        "        is_over = state is not None or self._closed\n",
        Test("tests/api/test_peers.py::test_an_owner_that_takes_its_time_is_waited_for"),
    ),
    Mutant(
        "LIVING_OWNER_NOT_ASKED",
        "R19: a call about another's transaction is answered here though its owner lives",
        (
            Patch(
                "coordinator/peers.py",
                "            if live.number == xid.incarnation and live.number not in self._over:\n",
                "            if live.number == xid.incarnation and live.number in self._over:\n",
            ),
            Patch(
                "coordinator/peers.py",
                "        if state is None or state.fenced:\n            return None\n        return _Owner",
                "        if state is None or state.number:\n            return None\n        return _Owner",
            ),
        ),
        (Test("tests/api/test_peers.py::test_every_call_that_names_an_xid_is_its_owners_to_answer"),),
    ),
    single(
        "UNKNOWN_OWNER_SPOKEN_FOR",
        "R7: an incarnation above one's own that the log does not know is spoken for",
        "coordinator/peers.py",
        "        if state is None and xid.incarnation > self._own.number:\n",
        "        if state is None and xid.incarnation < 0:\n",
        Test("tests/api/test_peers.py::test_an_xid_of_an_incarnation_that_nobody_knows_is_unknown"),
    ),
    single(
        "NONSENSE_IS_NO_OWNER",
        "R19: an owner whose answer says nothing is spoken for",
        "coordinator/peers.py",
        "            return None if answer is None else view_of(read_state(answer.transaction))\n"
        "        except PeerRefusedError as refused:\n"
        "            raise refused.as_told_here() from refused\n"
        "        except (AnswerError, KeyError, ValueError) as error:\n",
        "            return None if answer is None else view_of(read_state(answer.transaction))\n"
        "        except PeerRefusedError as refused:\n"
        "            raise refused.as_told_here() from refused\n"
        "        except (AnswerError, KeyError, ValueError):\n"
        "            return None\n"
        "        except ZeroDivisionError as error:\n",
        Test("tests/api/test_peers.py::test_an_answer_that_says_nothing_is_none"),
    ),
    single(
        "OWNERS_STATUS_IS_NOT_FOUND",
        "R19: an owner's error of no known kind is told as if the transaction were not there",
        "coordinator/peer_answers.py",
        '                return UnavailableError(f"its owner could not answer: {failed}", xid=xid)\n',
        "                return UnknownTransactionError(failed.message, xid=xid)\n",
        Test(
            "tests/api/test_peer_answers.py::"
            "test_an_owners_error_keeps_its_kind_and_reason_over_http[StatusCode.INTERNAL-INTERNAL-UnavailableError]"
        ),
    ),
    single(
        "LEFT_CALL_GOES_ON",
        "invariant 12: what a client gave up goes on at the owner",
        "coordinator/peers.py",
        "        finally:\n            call.cancel()\n        return None\n",
        "        return None\n",
        Test("tests/api/test_peers.py::test_a_client_that_leaves_takes_its_call_along"),
    ),
    single(
        "DEADLINE_LEFT_BEHIND",
        "R16: a client's deadline does not go along to the owner",
        "coordinator/api/grpc_forwarding.py",
        "    return context.time_remaining()\n",
        "    return None if context else 0.0\n",
        Test("tests/api/test_peers.py::test_a_forwarded_call_names_the_incarnation_and_takes_the_deadline_along"),
    ),
)
