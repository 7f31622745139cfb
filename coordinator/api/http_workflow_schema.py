"""What OpenAPI says of workflows' bodies and parameters, which are read by hand to stay exact."""

from __future__ import annotations

from typing import Final

from coordinator.api.http_recovery_schema import REASON, Schema, body_of, parameter_of
from coordinator.api.workflow_checks import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, TIMEOUT_MAX_S
from coordinator.locks.claims import KEY_MAX_CHARS, KEYS_MAX
from coordinator.protocol.workflow_records import WorkflowPhase

_STATES: Final = [*WorkflowPhase.__members__, "STUCK"]
_SIZE: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": PAGE_SIZE_MAX, "default": PAGE_SIZE_DEFAULT}

SCHEMAS: Final[dict[str, Schema]] = {
    "execute-workflow": {
        **body_of(
            {
                "workflow_type": {"type": "string", "examples": ["trade_execution"]},
                "parameters": {"type": "object", "description": "Read exactly: numbers are decimals, never floats."},
                "timeout_seconds": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "maximum": TIMEOUT_MAX_S,
                    "description": "For all of it: then what was done is undone, unless it is past a pivot.",
                },
                "request_id": {
                    "type": "string",
                    "pattern": "^[!-~]{1,128}$",
                    "description": "The caller's name of its intent, or the header Idempotency-Key: it runs once.",
                },
                "lock_keys": {
                    "type": "array",
                    "maxItems": KEYS_MAX,
                    "items": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS},
                    "description": "Keys to hold alone for as long as it runs.",
                },
            },
            ("workflow_type", "parameters"),
        ),
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "examples": ["respond-async"]},
                "description": "With respond-async the answer is 202, as soon as it has begun.",
            }
        ],
    },
    "workflows": {
        "parameters": [
            parameter_of("state", {"type": "string", "enum": _STATES}, "Only those that stand there."),
            parameter_of("workflow_type", {"type": "string"}, "Only those of this type."),
            parameter_of("page_size", _SIZE, "At most."),
            parameter_of("page_token", {"type": "string"}, "The next_page_token of the answer before."),
        ]
    },
    "workflows/{workflow_id}": {},
    "workflows/{workflow_id}/cancel": body_of({"reason": REASON}, ("reason",)),
    "workflows/{workflow_id}/retry": body_of({"reason": REASON}, ("reason",)),
    "workflows/{workflow_id}/skip": body_of(
        {"step": {"type": "string", "description": "The step that the workflow waits for."}, "reason": REASON},
        ("step", "reason"),
    ),
}
