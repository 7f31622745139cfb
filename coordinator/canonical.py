"""The canonical form of a request, and its digest, to which a request_id is bound (R3).

Two requests are the same when each service's operations are the same in order, with parameters
that are equal as JSON values: the order of keys, white space and the spelling of a number do not
count, nor does the order among services, whose branches run side by side. So a transaction that
was enlisted piece by piece and one that was sent whole are one request. The digest is SHA-256
over the JSON text of ``[[service, operation, parameters], …]``, sorted by service, with sorted
keys, in which a number stands as a text of NUL and its exact decimal: no other text can begin
with NUL, since exact JSON refuses it.

It is worked out for every request that has a request_id, so the C encoder writes it, and
what the doors have checked (duplicate keys, sizes, depth) is not checked again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final

from participant_sdk import exact_json
from participant_sdk.participant import Operation

DIGEST_SIZE_BYTES: Final = 32
_SERVICE: Final = attrgetter("service")


def digest(operations: Sequence[Operation]) -> bytes:
    """The digest of a request whose operations a door let in, 32 bytes."""
    by_service = sorted(operations, key=_SERVICE)
    request = [(each.service, each.name, _DECODER.decode(each.parameters)) for each in by_service]
    return hashlib.sha256(_ENCODER.encode(request).encode()).digest()


def _number(text: str) -> str:
    return "\x00" + exact_json.canonical(Decimal(text))


_DECODER: Final = json.JSONDecoder(parse_float=_number, parse_int=_number)
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)
