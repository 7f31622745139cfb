"""The canonical form of a request, and its digest, to which a request_id is bound (R3).

Two requests are the same when each service's operations are the same in order, with parameters
that are equal as JSON values: the order of keys, white space and the spelling of a number do not
count, nor does the order among services, whose branches run side by side. So a transaction that
was enlisted piece by piece and one that was sent whole are one request. The digest is SHA-256
over the JSON text of ``[[service, operation, parameters], …]``, sorted by service, with sorted
keys, in which a number stands as a text of NUL and its exact decimal: no other text can begin
with NUL, since exact JSON refuses it.

It is worked out for every request that has a request_id, so the C encoder writes it, from the
values that a door read to check them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Final

from participant_sdk import exact_json
from participant_sdk.exact_json import Exact
from participant_sdk.participant import Operation

DIGEST_SIZE_BYTES: Final = 32
_SERVICE: Final = itemgetter(0)


def digest(operations: Sequence[Operation]) -> bytes:
    """The digest of a request whose operations a door let in, 32 bytes."""
    return digest_of_read(operations, [exact_json.loads_object(each.parameters) for each in operations])


def digest_of_read(operations: Sequence[Operation], parameters: Sequence[Mapping[str, Exact]]) -> bytes:
    """The same digest, by each operation's parameters as exact JSON read them."""
    request = [(service, name, read) for (service, name, _), read in zip(operations, parameters, strict=True)]
    request.sort(key=_SERVICE)
    return hashlib.sha256(_ENCODER.encode(request).encode()).digest()


def _number(number: Decimal) -> str:
    """Stand in for a number, which is all that exact JSON reads and the encoder does not know."""
    return "\x00" + exact_json.canonical(number)


_ENCODER: Final = json.JSONEncoder(default=_number, sort_keys=True, separators=(",", ":"), check_circular=False)
