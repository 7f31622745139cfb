"""How gRPC's core waits for its sockets; imported by programs before gRPC, which reads this once, as it is imported.

By default a thread of its event engine waits, a pool of threads carries what it finds to the completion queue, and the
queue's own thread wakes the loop. Without the engine that last thread waits for the sockets itself: each message
changes threads less often, and costs a fifth to a third less CPU at either end (docs/performance.md).

A service that embeds the SDK chooses for itself. Whoever has set the variable has chosen already.
"""

from __future__ import annotations

import os
from typing import Final

EXPERIMENTS: Final = "-event_engine_client,-event_engine_listener"

os.environ.setdefault("GRPC_EXPERIMENTS", EXPERIMENTS)
