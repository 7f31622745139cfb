"""The exchange's own party: whom fees go to, by the name that every participant knows it by."""

from __future__ import annotations

from typing import Final

# No user of ours: the bookkeeper's migrations open its accounts, one in each currency.
FEES: Final = "house:fees"
