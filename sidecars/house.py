"""The exchange's own party: whom fees go to, by the name that every participant knows it by."""

from __future__ import annotations

from typing import Final

# The participants' SQL says it too: the bookkeeper's migrations open its accounts, one in each currency, and
# settlement nets fees for it.
FEES: Final = "house:fees"
