"""What OpenAPI says of bodies, which are read by hand to stay exact."""

from __future__ import annotations

from typing import Final

_OPERATION: Final = {
    "type": "object",
    "required": ["service", "operation", "parameters"],
    "additionalProperties": False,
    "properties": {
        "service": {"type": "string", "description": "The participant's configured name.", "examples": ["bookkeeper"]},
        "operation": {"type": "string", "examples": ["lock_funds"]},
        "parameters": {
            "type": "object",
            "description": "Read exactly: numbers are decimals, never floats. At most 64 KiB; all operations' 256 KiB.",
        },
    },
}

EXECUTE: Final[dict[str, object]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["operations"],
                    "additionalProperties": False,
                    "properties": {
                        "operations": {"type": "array", "minItems": 1, "maxItems": 100, "items": _OPERATION},
                        "timeout_seconds": {
                            "type": "number",
                            "exclusiveMinimum": 0,
                            "maximum": 3300,
                            "description": "For reaching a decision; the configured default where it is left out.",
                        },
                        "request_id": {
                            "type": "string",
                            "pattern": "^[!-~]{1,128}$",
                            "description": "The caller's name of its intent, or the header Idempotency-Key.",
                        },
                        "wait": {"type": "string", "enum": ["applied", "decided"], "default": "applied"},
                        "lock_keys": {
                            "type": "array",
                            "maxItems": 100,
                            "items": {"type": "string", "minLength": 1, "maxLength": 200},
                            "description": "Keys to hold alone before anything is sent to participants.",
                        },
                    },
                }
            }
        },
    }
}

_PROBLEM: Final[dict[str, object]] = {
    "description": "Problem details (RFC 9457)",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                    "field": {"type": "string"},
                    "transaction_id": {"type": "string"},
                    "state": {"type": "string"},
                },
            }
        }
    },
}

PROBLEMS: Final[dict[int | str, dict[str, object]]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}
