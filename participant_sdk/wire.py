"""The one place where domain values become messages, and messages values that can be trusted.

Everything read is checked. What a person can mend raises ``InvalidFieldError``, which names the
field as the contract spells it; the doors turn it into a vote or a status. ``frames`` does the
same for the packed frames of a session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.exact_json import PARAMETERS_MAX_BYTES
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import (
    UNIX_MS_MAX,
    InvalidIdentifierError,
    Xid,
    check_log_id,
    check_participant,
    check_request_id,
)
from participant_sdk.participant import OPERATIONS_MAX, Commit, FencingToken, Operation, Prepare, Rollback
from participant_sdk.xa import Ack, AckKind, Vote, VoteKind, XaCode, transient_no

PARTICIPANTS_MAX: Final = 100
ADDRESSES_MAX: Final = 100
REMAINING_MAX_MS: Final = 3_600_000
# A vote's results and message, in UTF-8. Those of all branches go into one row of the decision log.
VOTE_MAX_BYTES: Final = 64 * 1024
MESSAGE_MAX_CHARS: Final = 1_000
REASON_MAX_CHARS: Final = 64
FIELD_MAX_CHARS: Final = 200
DIGEST_SIZE_BYTES: Final = 32
SEQUENCE_MAX: Final = 2**63 - 1
LOCK_KEYS_MAX: Final = 100
LOCK_KEY_MAX_CHARS: Final = 200
BAD_RESULTS: Final = "BAD_RESULTS"

_OPERATION_NAME: Final = re.compile(r"[\x21-\x7e]{1,64}")
_TENANT: Final = re.compile(r"[\x21-\x7e]{0,64}")
# What no JSON text contains. Nor could the log keep it, or not in the same size.
_NOT_JSON: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class InvalidFieldError(ValueError):
    """A field of a request is wrong in itself. ``field`` is its path, such as ``operations[0].service``."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def write_prepare(request: resource_pb2.PrepareRequest, branch: Prepare, remaining_ms: int) -> None:
    """Write a branch to prepare into a message that is empty yet; xid and log id travel beside it.

    In place and field by field: a message made apart would be copied into its frame, at twice the cost.
    """
    request.remaining_ms = remaining_ms
    request.participants.extend(branch.participants)
    request.tenant = branch.tenant
    request.request_id = branch.request_id
    request.request_digest = branch.request_digest
    for service, name, parameters in branch.operations:
        operation = request.operations.add()
        operation.service = service
        operation.operation = name
        operation.parameters = parameters
    if branch.ends_work:
        request.ends_work = True
        request.branch_number = branch.branch_number
        request.operation_count = branch.operation_count
    if branch.fencing_tokens:
        for key, token, shared in branch.fencing_tokens:
            request.fencing_tokens.add(key=key, token=token, shared=shared)


def read_prepare(request: resource_pb2.PrepareRequest, xid: Xid, log_id: str, *, service: str, now_s: float) -> Prepare:
    """Read a branch to prepare at the participant ``service``, every field checked. InvalidFieldError."""
    if not 1 <= request.remaining_ms <= REMAINING_MAX_MS:
        raise InvalidFieldError("remaining_ms", f"from 1 to {REMAINING_MAX_MS}, not {request.remaining_ms}")
    if request.request_id or request.request_digest:
        _check_request(request)
    if not _TENANT.fullmatch(request.tenant):
        raise InvalidFieldError("tenant", "at most 64 printable ASCII characters")
    if request.ends_work and (request.operations or not request.branch_number):
        raise InvalidFieldError("ends_work", "work already done comes without operations, and with its branch_number")
    return Prepare(
        log_id,
        xid,
        read_operations(request.operations, service),
        now_s + request.remaining_ms / 1000,
        _check_participants(tuple(request.participants)),
        request.tenant,
        request.request_id,
        request.request_digest,
        request.ends_work,
        request.branch_number,
        request.operation_count,
        _read_tokens(request.fencing_tokens) if request.fencing_tokens else (),
    )


def read_operations(operations: Sequence[common_pb2.Operation], service: str) -> tuple[Operation, ...]:
    """Read a branch's operations, all for ``service``. InvalidFieldError names the first wrong one."""
    if len(operations) > OPERATIONS_MAX:
        raise InvalidFieldError("operations", f"at most {OPERATIONS_MAX} operations, not {len(operations)}")
    read: list[Operation] = []
    for at, message in enumerate(operations):
        operation = Operation(message.service, message.operation, message.parameters)
        if operation.service != service:
            raise InvalidFieldError(
                f"operations[{at}].service", f"this participant is {service!r}, not {operation.service[:64]!r}"
            )
        if not _OPERATION_NAME.fullmatch(operation.name):
            raise InvalidFieldError(f"operations[{at}].operation", "1 to 64 printable ASCII characters")
        if text_size_bytes(operation.parameters) > PARAMETERS_MAX_BYTES:
            raise InvalidFieldError(f"operations[{at}].parameters", f"larger than {PARAMETERS_MAX_BYTES} bytes")
        read.append(operation)
    return tuple(read)


def _read_tokens(tokens: Sequence[resource_pb2.FencingToken]) -> tuple[FencingToken, ...]:
    if len(tokens) > LOCK_KEYS_MAX or len({each.key for each in tokens}) < len(tokens):
        raise InvalidFieldError("fencing_tokens", f"at most {LOCK_KEYS_MAX}, one for each key")
    for at, each in enumerate(tokens):
        if not 0 < len(each.key) <= LOCK_KEY_MAX_CHARS or not each.key.isprintable():
            raise InvalidFieldError(f"fencing_tokens[{at}].key", f"1 to {LOCK_KEY_MAX_CHARS} printable characters")
        if not 0 < each.token <= SEQUENCE_MAX:
            raise InvalidFieldError(f"fencing_tokens[{at}].token", f"from 1 to {SEQUENCE_MAX}, not {each.token}")
    return tuple(FencingToken(each.key, each.token, each.shared) for each in tokens)


def read_commit(request: resource_pb2.CommitRequest) -> Commit:
    """Read a branch to commit. InvalidFieldError."""
    if not 0 < request.sequence <= SEQUENCE_MAX:
        raise InvalidFieldError("sequence", f"from 1 to {SEQUENCE_MAX}, not {request.sequence}")
    if not request.incarnation:
        raise InvalidFieldError("incarnation", "must be above 0")
    log_id, xid = read_log_id(request.log_id), read_xid(request.xid)
    return Commit(log_id, xid, request.incarnation, request.sequence, request.epoch)


def read_rollback(request: resource_pb2.RollbackRequest) -> Rollback:
    """Read a branch to roll back. InvalidFieldError."""
    return Rollback(read_log_id(request.log_id), read_xid(request.xid))


def read_xid(text: str) -> Xid:
    """Read a field ``xid``. InvalidFieldError."""
    try:
        return Xid.parse(text)
    except InvalidIdentifierError as error:
        raise InvalidFieldError("xid", str(error)) from error


def read_log_id(text: str) -> str:
    """Read a field ``log_id``. InvalidFieldError."""
    try:
        return check_log_id(text)
    except InvalidIdentifierError as error:
        raise InvalidFieldError("log_id", str(error)) from error


def write_vote(vote: Vote) -> common_pb2.Vote:
    """Write a vote."""
    # The enums' numbers are the wire's, by their definition.
    return common_pb2.Vote(
        kind=common_pb2.VoteKind.ValueType(vote.kind),
        xa_code=vote.xa_code,
        reason=vote.reason,
        message=vote.message[:MESSAGE_MAX_CHARS],
        transient=vote.transient,
        field=vote.field,
        results=vote.results,
    )


def read_vote(message: common_pb2.Vote) -> Vote:
    """Read a vote. Anything but the three known ones, or results out of bounds, is a transient "no" (R2)."""
    if not VoteKind.PREPARED <= message.kind <= VoteKind.ROLLED_BACK:
        return transient_no("UNKNOWN_VOTE", f"a vote of an unknown kind, {message.kind}", xa_code=XaCode.RBPROTO)
    vote = Vote(
        VoteKind(message.kind),
        message.xa_code,
        _plain(message.reason, REASON_MAX_CHARS),
        _plain(message.message, MESSAGE_MAX_CHARS),
        message.transient,
        _plain(message.field, FIELD_MAX_CHARS),
        tuple(message.results),
    )
    fault = results_fault(vote)
    return transient_no(BAD_RESULTS, fault, xa_code=XaCode.RBPROTO) if fault else vote


def results_fault(vote: Vote) -> str:
    """What the contract does not allow of a vote's results, in words for their author; empty where all is well."""
    results = vote.results
    if not results:
        return ""
    if len(results) > OPERATIONS_MAX:
        return f"{len(results)} results; a branch has at most {OPERATIONS_MAX}"
    size_bytes = results_size_bytes(results) + text_size_bytes(vote.message[:MESSAGE_MAX_CHARS])
    if size_bytes > VOTE_MAX_BYTES:
        return f"results and message take {size_bytes} bytes of at most {VOTE_MAX_BYTES}"
    if any(map(_NOT_JSON.search, results)):
        return "a result with a control character, which is no JSON text"
    return ""


def write_ack(ack: Ack) -> common_pb2.Ack:
    """Write an acknowledgement."""
    return common_pb2.Ack(
        kind=common_pb2.AckKind.ValueType(ack.kind), xa_code=ack.xa_code, message=ack.message[:MESSAGE_MAX_CHARS]
    )


def read_ack(message: common_pb2.Ack) -> Ack:
    """Read an acknowledgement. An unknown kind is no answer, so RETRY."""
    if not AckKind.DONE <= message.kind <= AckKind.HEURISTIC_HAZARD:
        return Ack(AckKind.RETRY, XaCode.RETRY, f"an acknowledgement of an unknown kind, {message.kind}")
    return Ack(AckKind(message.kind), message.xa_code, _plain(message.message, MESSAGE_MAX_CHARS))


def write_introduction(introduction: Introduction, clock_unix_ms: int) -> resource_pb2.HelloRequest:
    """Write who speaks, and the time it is there."""
    return resource_pb2.HelloRequest(
        log_id=introduction.log_id,
        coordinator=introduction.coordinator,
        incarnation=introduction.incarnation,
        epoch=introduction.epoch,
        coordinator_addresses=introduction.coordinator_addresses,
        clock_unix_ms=clock_unix_ms,
        pruned_below_unix_ms=introduction.pruned_below_unix_ms,
        number=introduction.number,
    )


def read_introduction(message: resource_pb2.HelloRequest) -> Introduction:
    """Read who speaks; the clock is the caller's to judge. InvalidFieldError."""
    if not 1 <= len(message.coordinator) <= 64:
        raise InvalidFieldError("coordinator", "1 to 64 characters")
    if not message.incarnation:
        raise InvalidFieldError("incarnation", "must be above 0")
    if not message.epoch:
        raise InvalidFieldError("epoch", "must be above 0")
    addresses = tuple(message.coordinator_addresses)
    if len(addresses) > ADDRESSES_MAX or any(not 1 <= len(address) <= 255 for address in addresses):
        raise InvalidFieldError("coordinator_addresses", f"at most {ADDRESSES_MAX}, of 1 to 255 characters each")
    if not 0 <= message.pruned_below_unix_ms <= UNIX_MS_MAX:
        raise InvalidFieldError("pruned_below_unix_ms", f"from 0 to {UNIX_MS_MAX}")
    return Introduction(
        read_log_id(message.log_id),
        message.coordinator,
        message.incarnation,
        message.epoch,
        addresses,
        message.pruned_below_unix_ms,
        message.number,
    )


def write_welcome(welcome: Welcome) -> resource_pb2.HelloResponse:
    """Write who answers."""
    return resource_pb2.HelloResponse(
        participant=welcome.participant,
        clock_unix_ms=welcome.clock_unix_ms,
        epoch=welcome.epoch,
        watermarks=[
            resource_pb2.Watermark(incarnation=incarnation, sequence=sequence)
            for incarnation, sequence in welcome.watermarks.items()
        ],
        operations=welcome.operations,
        session=welcome.session,
        refusal=welcome.refusal,
        number=welcome.number,
    )


def read_welcome(message: resource_pb2.HelloResponse) -> Welcome:
    """Read who answers; whether it is who and what was expected is the link's to judge."""
    return Welcome(
        message.participant,
        message.clock_unix_ms,
        message.epoch,
        {mark.incarnation: mark.sequence for mark in message.watermarks},
        tuple(message.operations),
        message.session,
        _plain(message.refusal, REASON_MAX_CHARS),
        message.number,
    )


def text_size_bytes(text: str) -> int:
    """A text's size in UTF-8, without encoding what is ASCII anyway."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def results_size_bytes(results: Iterable[str]) -> int:
    """What a vote's results take on the wire."""
    return sum(map(text_size_bytes, results))


def _check_request(request: resource_pb2.PrepareRequest) -> None:
    try:
        check_request_id(request.request_id)
    except InvalidIdentifierError as error:
        raise InvalidFieldError("request_id", str(error)) from error
    if len(request.request_digest) not in {0, DIGEST_SIZE_BYTES}:
        raise InvalidFieldError("request_digest", f"{DIGEST_SIZE_BYTES} bytes, not {len(request.request_digest)}")


# The same few combinations come with every transaction, so each is checked once.
@lru_cache(maxsize=1024)
def _check_participants(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > PARTICIPANTS_MAX:
        raise InvalidFieldError("participants", f"at most {PARTICIPANTS_MAX}, not {len(names)}")
    for at, name in enumerate(names):
        try:
            check_participant(name)
        except InvalidIdentifierError as error:
            raise InvalidFieldError(f"participants[{at}]", str(error)) from error
    return names


def _plain(text: str, max_chars: int) -> str:
    """Cut to the bound, without the NUL that PostgreSQL cannot keep."""
    if len(text) > max_chars:
        text = text[:max_chars]
    return text.replace("\x00", "") if "\x00" in text else text
