"""Where those are killed who act for participants, and who play other companies: around each call to the chain."""

from __future__ import annotations

from functools import partial
from typing import Final

from tests.crash.placing import Part, Point, Where

_BEFORE, _AFTER, _ENTRY = Where.BEFORE, Where.AFTER, Where.ENTRY
_wallet = partial(Point, part=Part.RESERVATION, module="sidecars.wallet.broadcasting")
_matcher = partial(
    Point,
    part=Part.RESERVATION,
    module="sidecars.trading.matcher",
    function="BookMatcher.round",
    anchor="if not await self._store.record(",
)
_company = partial(Point, part=Part.COMPANY, module="sidecars.simulators.faults", function="Behaviour.answer")
_PAYING: Final = (
    "call in ('fundrawtransaction', 'signrawtransactionwithwallet', 'sendrawtransaction', 'gettransaction')"
)

WALLET_POINTS: Final = (
    _wallet("PAYMENT_SIGNED", function="Broadcaster._sign", where=_AFTER, anchor="signed = await self._node.sign("),
    _wallet("PAYMENT_STORED", function="Broadcaster._send", where=_ENTRY),
    _wallet("PAYMENT_SENT", function="Broadcaster._send", where=_AFTER, anchor="await self._node.send("),
    _wallet("PAYMENT_SEEN", function="Broadcaster._note_seen", where=_AFTER, anchor="await self._session.connection"),
)
# Matching goes on beside the branches, between a step that places an order and the one that waits for its fills.
MATCHER_POINTS: Final = (
    _matcher("MATCHING_BEFORE", where=_BEFORE),
    _matcher("MATCHING_AFTER", where=_AFTER),
)
CHAIN_POINTS: Final = (
    _company("COMPANY_CALLED", where=_ENTRY, when=_PAYING),
    # Done, and durable, and not answered.
    _company("COMPANY_DONE", where=_BEFORE, anchor="if FaultKind.TWICE in struck:", when=_PAYING),
)
EXCHANGE_POINTS: Final = (*WALLET_POINTS, *MATCHER_POINTS, *CHAIN_POINTS)
