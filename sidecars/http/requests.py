"""What the service is sent: one JSON object, and the header by which it knows who sent it."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

from participant_sdk.ids import BranchId
from participant_sdk.participant import Prepare

SIGNATURE: Final = "Pincex-Signature"


def try_body(branch: BranchId, prepare: Prepare, remaining_ms: int) -> bytes:
    """Write a try. The operations' parameters go in as they came, which was checked: numbers stay exact."""
    operations = ",".join(
        f'{{"operation":{json.dumps(operation.name)},"parameters":{operation.parameters}}}'
        for operation in prepare.operations
    )
    said = _said("try", branch, tenant=prepare.tenant, request_id=prepare.request_id, remaining_ms=remaining_ms)
    return f'{said[:-1]},"operations":[{operations}]}}'.encode()


def ending_body(call: str, branch: BranchId) -> bytes:
    """Write a confirm or a cancel: the branch's id says all."""
    return _said(call, branch).encode()


def signature(secret: bytes, unix_s: int, body: bytes) -> str:
    """Sign a body and its time: HMAC-SHA256 of "time.body", in hexadecimal."""
    digest = hmac.new(secret, f"{unix_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={unix_s},v1={digest}"


def _said(call: str, branch: BranchId, **more: str | int) -> str:
    return json.dumps(
        {
            "call": call,
            "branch_id": f"{branch.log_id}:{branch.xid}:{branch.participant}",
            "transaction_id": str(branch.xid),
            **more,
        }
    )
