"""What OpenAPI says of recovery's bodies and parameters, which are read by hand to stay exact."""

from __future__ import annotations

from typing import Final

from coordinator.api.checks import REASON_MAX_CHARS

Schema = dict[str, object]

_REASON: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": REASON_MAX_CHARS,
    "description": "Why, for whoever reads the record of it. Kept for good.",
}
_PREVIEW: Final[Schema] = {
    "type": "boolean",
    "default": False,
    "description": "Only show what would be touched; nothing is changed.",
}
_PARTICIPANT: Final[Schema] = {"type": "string", "description": "Its configured name.", "examples": ["bookkeeper"]}


def _body(properties: Schema, required: tuple[str, ...]) -> Schema:
    schema = {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }
    return {"requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}}}


def _parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


SCHEMAS: Final[dict[str, Schema]] = {
    "recovery/trigger": _body(
        {
            "recovery_type": {"type": "string", "enum": ["global", "transaction", "participant", "orphans"]},
            "transaction_id": {"type": "string", "format": "uuid", "description": "With transaction: which."},
            "participant": {**_PARTICIPANT, "description": "With participant: which."},
        },
        ("recovery_type",),
    ),
    "recovery/status": {},
    "recovery/in-doubt": {
        "parameters": [
            _parameter("participant", {"type": "string"}, "Only this participant's."),
            _parameter("page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "At most."),
            _parameter("page_token", {"type": "string"}, "The next_page_token of the answer before."),
        ]
    },
    "recovery/hold": _body({"reason": _REASON}, ("reason",)),
    "recovery/release": _body({"reason": _REASON, "preview": _PREVIEW}, ("reason",)),
    "{transaction_id}/retry": _body({}, ()),
    "{transaction_id}/resolve": _body(
        {
            "participant": _PARTICIPANT,
            "outcome": {"type": "string", "enum": ["commit", "rollback"]},
            "reason": _REASON,
            "preview": _PREVIEW,
        },
        ("participant", "outcome", "reason"),
    ),
    "{transaction_id}/forget": _body({"reason": _REASON}, ("reason",)),
    "{transaction_id}/rollback": _body({"reason": _REASON}, ()),
}
