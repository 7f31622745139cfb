"""What is there before a load: the till's money."""

from __future__ import annotations

from tests.crash.load import CURRENCY, SHOP, STOCK, TILL
from tests.crash.processes import Cluster


async def fill_till(up: Cluster) -> None:
    """Open the two accounts and put money into one."""
    opened = await up.execute(
        ("bookkeeper", "open_account", {"user_id": TILL, "currency": CURRENCY}),
        ("bookkeeper", "open_account", {"user_id": SHOP, "currency": CURRENCY}),
        ("bookkeeper", "credit_account", {"user_id": TILL, "currency": CURRENCY, "amount": STOCK}),
    )
    assert opened.json()["state"] == "COMMITTED", opened.text
