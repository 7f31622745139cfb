"""The canonical form of a request, and its digest, to which a request_id is bound (R3).

Two requests are the same when their operations are the same in order, with parameters that
are equal as JSON values: the order of keys, white space and the spelling of a number do not
count. The digest is SHA-256 over the canonical text of ``[[service, operation, parameters], …]``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from participant_sdk import exact_json
from participant_sdk.participant import Operation

DIGEST_SIZE_BYTES: Final = 32


def digest(operations: Sequence[Operation]) -> bytes:
    """The digest of a request, 32 bytes. InvalidJsonError where parameters cannot be read exactly."""
    request = [[each.service, each.name, exact_json.loads_object(each.parameters)] for each in operations]
    return hashlib.sha256(exact_json.canonical(request).encode()).digest()
