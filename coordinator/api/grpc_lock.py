"""LockService over the locks: requests to calls, answers to messages, nothing else."""

from __future__ import annotations

from typing import Final

import grpc
from pincex.tx.v1 import lock_pb2
from pincex.tx.v1.lock_pb2_grpc import LockServiceServicer

from coordinator.api import checks, grpc_wire
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import Refusals
from coordinator.api.grpc_forwarding import at_owner
from coordinator.errors import InvalidRequestError
from coordinator.locks.board import LockClaim, LockedKey
from coordinator.locks.claims import Mode
from coordinator.locks.transaction_locks import TransactionLocks
from coordinator.telemetry import Telemetry
from participant_sdk.ids import Xid

SERVICE: Final = lock_pb2.DESCRIPTOR.services_by_name["LockService"]
PAGE_SIZE_DEFAULT: Final = 100
_MODES: Final = {
    lock_pb2.LOCK_MODE_UNSPECIFIED: Mode.EXCLUSIVE,
    lock_pb2.LOCK_MODE_SHARED: Mode.SHARED,
    lock_pb2.LOCK_MODE_EXCLUSIVE: Mode.EXCLUSIVE,
}


class LockService(LockServiceServicer):
    """Every RPC of the service. Whoever goes away while it waits holds nothing, and waits for nothing."""

    def __init__(self, gate: Gate, telemetry: Telemetry) -> None:
        self._gate = gate
        self._telemetry = telemetry

    async def Acquire(  # noqa: N802 - the contract's name, here and below
        self,
        request: lock_pb2.AcquireRequest,
        context: grpc.aio.ServicerContext[lock_pb2.AcquireRequest, lock_pb2.AcquireResponse],
    ) -> lock_pb2.AcquireResponse:
        """Hold keys for an active transaction."""
        response = lock_pb2.AcquireResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            keys = checks.check_lock_keys(request.keys)
            mode = _read_mode(request.mode)
            timeout_s = grpc_wire.read_timeout(request, 0.0) or None
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.locks.Acquire, request)
            if told is not None:
                return told
            locks = await self._locks_of_active(xid)
            response.token = (await locks.acquire(xid, keys, mode, timeout_s)).token
        return response

    async def Release(  # noqa: N802
        self,
        request: lock_pb2.ReleaseRequest,
        context: grpc.aio.ServicerContext[lock_pb2.ReleaseRequest, lock_pb2.ReleaseResponse],
    ) -> lock_pb2.ReleaseResponse:
        """Let go of keys before the transaction has finished."""
        response = lock_pb2.ReleaseResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.locks.Release, request)
            if told is not None:
                return told
            response.keys.extend(await (await self._locks_of_active(xid)).release(xid, request.token))
        return response

    async def ListLocks(  # noqa: N802
        self,
        request: lock_pb2.ListLocksRequest,
        context: grpc.aio.ServicerContext[lock_pb2.ListLocksRequest, lock_pb2.ListLocksResponse],
    ) -> lock_pb2.ListLocksResponse:
        """List locked keys."""
        response = lock_pb2.ListLocksResponse()
        async with Refusals(context, self._telemetry):
            prefix = checks.check_lock_key(request.key_prefix, "key_prefix") if request.key_prefix else ""
            after = checks.check_lock_key(request.page_token, "page_token") if request.page_token else ""
            size = checks.check_page_size(request.page_size) if request.page_size else PAGE_SIZE_DEFAULT
            found = await self._gate.assembly.locks.board.locked_keys(prefix, after, size)
            for locked in found:
                _write_locked(locked, response.locks.add())
            if len(found) == size:
                response.next_page_token = found[-1].key
        return response

    async def BreakLock(  # noqa: N802
        self,
        request: lock_pb2.BreakLockRequest,
        context: grpc.aio.ServicerContext[lock_pb2.BreakLockRequest, lock_pb2.BreakLockResponse],
    ) -> lock_pb2.BreakLockResponse:
        """Take a key from its holders."""
        response = lock_pb2.BreakLockResponse()
        async with Refusals(context, self._telemetry):
            key, reason = checks.check_lock_key(request.key), checks.check_given_reason(request.reason)
            broken = await self._gate.assembly.locks.board.break_lock(key, reason)
            for claim in broken.claims:
                _write_claim(claim, response.broken.add())
            response.keys.extend(broken.keys)
        return response

    async def _locks_of_active(self, xid: Xid) -> TransactionLocks:
        """The locks of a transaction that is held here; the error of one that nobody holds."""
        assembly = self._gate.assembly
        if assembly.engine.find(xid) is None:
            raise await assembly.aftermath.too_late(xid)
        return assembly.locks.transactions


def _read_mode(mode: int) -> Mode:
    found = _MODES.get(lock_pb2.LockMode.ValueType(mode))
    if found is None:
        raise InvalidRequestError(f"no such mode: {mode}", field="mode", code="LOCK_MODE_UNKNOWN")
    return found


def _write_locked(locked: LockedKey, lock: lock_pb2.Lock) -> None:
    lock.key = locked.key
    for claim in locked.holders:
        _write_claim(claim, lock.holders.add())
    for claim in locked.waiters:
        _write_claim(claim, lock.waiters.add())


def _write_claim(claim: LockClaim, message: lock_pb2.LockClaim) -> None:
    message.owner = claim.owner
    message.xid = "" if claim.xid is None else str(claim.xid)
    message.mode = lock_pb2.LockMode.ValueType(claim.mode)
    message.token = claim.token
    message.elapsed.FromMilliseconds(max(0, claim.for_ms))
    message.ttl.FromMilliseconds(max(0, claim.ttl_ms))
    message.incarnation = claim.incarnation
    message.owner_alive = claim.is_alive
