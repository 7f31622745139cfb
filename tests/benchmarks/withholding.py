"""A coordinator that decides and then keeps it to itself: ``python -m tests.benchmarks.withholding coordinator …``.

It makes what recovery is measured with: transactions that are decided, and finished nowhere. The patches are put
into the text of two modules as they are imported, in this process alone.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

from tests import patching

_PATCHES: Final = {
    "participant_sdk.link": patching.replacing(
        "commits withheld",
        "            self._outbox.commit(xid, incarnation, sequence)\n",
        "            pass\n",
    ),
    "coordinator.inquiries": patching.replacing(
        "answers withheld",
        "            return self._of_transaction(running.transaction)\n"
        "        answer = await self._read(xid, participants)\n",
        '            raise UnavailableError("withheld")\n        answer = await self._read(xid, participants)\n',
    ),
}


def main() -> None:
    """Become the coordinator."""
    patching.install(_PATCHES)
    sys.argv[0] = "pincex"
    importlib.import_module("coordinator.cli").main()


if __name__ == "__main__":
    main()
