"""What OpenAPI says of recovery's bodies and parameters, which are read by hand to stay exact."""

from __future__ import annotations

from typing import Final

from coordinator.api.checks import REASON_MAX_CHARS

Schema = dict[str, object]

REASON: Final[Schema] = {
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


def body_of(properties: Schema, required: tuple[str, ...]) -> Schema:
    """A body of these members, and no others."""
    schema = {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": properties,
    }
    return {"requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}}}


def parameter_of(name: str, schema: Schema, description: str) -> Schema:
    """A parameter of the query, which may be left out."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


SCHEMAS: Final[dict[str, Schema]] = {
    "recovery/trigger": body_of(
        {
            "recovery_type": {
                "type": "string",
                "enum": ["global", "transaction", "participant", "orphans", "workflows"],
            },
            "transaction_id": {"type": "string", "format": "uuid", "description": "With transaction: which."},
            "participant": {**_PARTICIPANT, "description": "With participant: which."},
        },
        ("recovery_type",),
    ),
    "recovery/status": {},
    "recovery/in-doubt": {
        "parameters": [
            parameter_of("participant", {"type": "string"}, "Only this participant's."),
            parameter_of("page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "At most."),
            parameter_of("page_token", {"type": "string"}, "The next_page_token of the answer before."),
        ]
    },
    "recovery/hold": body_of({"reason": REASON}, ("reason",)),
    "recovery/release": body_of({"reason": REASON, "preview": _PREVIEW}, ("reason",)),
    "{transaction_id}/retry": body_of({}, ()),
    "{transaction_id}/resolve": body_of(
        {
            "participant": _PARTICIPANT,
            "outcome": {"type": "string", "enum": ["commit", "rollback"]},
            "reason": REASON,
            "preview": _PREVIEW,
        },
        ("participant", "outcome", "reason"),
    ),
    "{transaction_id}/forget": body_of({"reason": REASON}, ("reason",)),
    "{transaction_id}/rollback": body_of({"reason": REASON}, ()),
}
