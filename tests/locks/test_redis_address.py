"""Redis addresses: each kind, and what is wrong with others, told without the password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.locks.redis_address import RedisAddress, parse_address


def test_one_node() -> None:
    assert parse_address("redis://redis") == RedisAddress("", (("redis", 6379),))
    assert parse_address("rediss://us%40er:p%3Aw@[::1]:7000/3") == RedisAddress(
        "", (("::1", 7000),), "us@er", "p:w", 3, tls=True
    )
    assert parse_address("redis://:secret@h:1/0").password == "secret"  # noqa: S105 - nobody's


def test_sentinels_and_the_name_they_know() -> None:
    assert parse_address("redis+sentinel://:pw@a,b:1/main/2?sentinel_password=other") == RedisAddress(
        "sentinel", (("a", 26379), ("b", 1)), "", "pw", 2, "main", "other"
    )


def test_a_cluster_by_any_of_its_nodes() -> None:
    assert parse_address("redis+cluster://a:1,b:2").nodes == (("a", 1), ("b", 2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a Redis address"),
        ("http://secret@redis", "redis://"),
        ("redis+nothing://h", "redis+sentinel://"),
        ("redis://", "host:port"),
        ("redis://:secret@h:0", "port 1 to 65535"),
        ("redis://:secret@h:70000", "port 1 to 65535"),
        ("redis://:secret@h:x", "host:port"),
        ("redis://:secret@a,b", "one host"),
        ("redis://:secret@h/a", "database's number"),
        ("redis://:secret@h/1/2", "database's number"),
        ("redis://:secret@h/99999999999999", "database's number"),
        ("redis://:secret@h?db=3", "no other parameters"),
        ("redis://:secret@h#x", "no other parameters"),
        ("redis+sentinel://:secret@h", "path begins with the name"),
        ("redis+sentinel://:secret@h/a b", "path begins with the name"),
        ("redis+cluster://:secret@h/1", "one database"),
        ("redis://:secret@[::1", "a Redis address"),
        ("redis://:secret@h\n", "one line"),
        ("redis://" + "h" * 3000, "2048"),
    ],
)
def test_what_is_wrong_is_told_without_the_password(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".+") as raised:
        parse_address(text)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


@given(st.text(max_size=60) | st.builds("redis+sentinel://{}/{}".format, st.text(max_size=20), st.text(max_size=20)))
def test_any_text_is_an_address_or_a_complaint(text: str) -> None:
    try:
        parse_address(text)
    except ValueError as error:
        assert str(error)
