"""Query parameters: read by name, refused by name."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from coordinator.api import http_json


def query(request: Request, known: Sequence[str]) -> dict[str, str]:
    """Read the query parameters, each at most once. InvalidRequestError names the one that is wrong."""
    for name in request.query_params:
        if name not in known:
            raise http_json.invalid(f"unknown; known here: {', '.join(known)}", name[:64], "FIELD_UNKNOWN")
        if len(request.query_params.getlist(name)) > 1:
            raise http_json.invalid("the parameter stands twice", name, "FIELD_TWICE")
    return dict(request.query_params)


def page_size(written: str, default: int) -> int:
    """Read a page's size, whose bounds are the listing's own to check. InvalidRequestError."""
    if not written:
        return default
    # This many digits are no number of rows.
    if not (written.isascii() and written.isdecimal()) or len(written) > len("1000"):
        raise http_json.invalid("a number from 1 to 1000", "page_size", "PAGE_SIZE_OUT_OF_RANGE")
    return int(written)
