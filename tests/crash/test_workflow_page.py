"""The workflow in docs/workflows.md works as it is written: a coordinator imports it and runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import MakeDatabase
from tests.crash.processes import ROOT, Cluster, cluster

PAGE: Final = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.timeout(180)


async def run(up: Cluster, **parameters: object) -> dict[str, object]:
    body = {"workflow_type": "custom_trade", "parameters": parameters}
    url = f"http://{up.coordinators[0].http}/api/v1/transactions/execute-workflow"
    answer = await up.client.post(url, content=json.dumps(body), headers={"content-type": "application/json"})
    told: dict[str, object] = answer.json()
    assert answer.status_code in {200, 400}, told
    return told


async def test_the_page_s_workflow_runs(
    tmp_path: Path, databases: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = BLOCKS
    (tmp_path / "page_of_workflows.py").write_text(block, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    order: dict[str, object] = {"user_id": "123", "symbol": "BTC/USD", "side": "sell", "price": 45000}
    async with cluster(tmp_path, databases, workflows=["page_of_workflows"]) as up:
        opened = await up.execute(
            ("bookkeeper", "open_account", {"user_id": "123", "currency": "BTC"}),
            ("bookkeeper", "credit_account", {"user_id": "123", "currency": "BTC", "amount": "500"}),
        )
        assert opened.json()["state"] == "COMMITTED"
        traded = await run(up, **order, amount=1.5)
        assert traded["state"] == "COMPLETED", traded
        assert str(traded["result"]).count("order_id")
        large = await run(up, **order, amount=101)
        assert large["state"] == "COMPENSATED", large
        poor = await run(up, **{**order, "side": "buy"}, amount=1)
        assert poor["state"] == "COMPENSATED", poor
        wrong = await run(up, **order, amount="much")
        assert wrong["field"] == "parameters.amount"
        rows = await up.rows("bookkeeper", "select locked from bookkeeper.accounts where user_id = '123'")
        assert [str(locked).rstrip("0") for (locked,) in rows] == ["1.5"]
