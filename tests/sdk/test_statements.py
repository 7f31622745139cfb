"""An XA resource's operations that are single statements: what they take, and where."""

from __future__ import annotations

import pytest

from participant_sdk.resources.postgres_operations import Statement


def test_a_statement_knows_its_parameters_and_their_places() -> None:
    statement = Statement("update t set a = a + %(by)s, b = '5 %%' where k = %(key)s and a < %(by)s")
    assert statement.names == ("by", "key")
    assert statement.places == ("by", "key", "by")
    assert statement.template % ("1", "'x'", "1") == "update t set a = a + 1, b = '5 %' where k = 'x' and a < 1"


def test_what_follows_a_doubled_percent_sign_is_no_parameter() -> None:
    statement = Statement("select '%%(a)s %%%%', %(a)s")
    assert statement.places == ("a",)
    assert statement.template % ("1",) == "select '%(a)s %%', 1"


@pytest.mark.parametrize("sql", ["select '5%'", "select %s", "select %(user-id)s", "select %(a)b", "select %%%"])
def test_a_percent_sign_is_a_parameters_or_is_doubled(sql: str) -> None:
    """The server would be sent something else than was meant, or every branch fail."""
    with pytest.raises(ValueError, match="a percent sign %%"):
        Statement(sql)
