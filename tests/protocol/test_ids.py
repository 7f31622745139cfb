from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.ids import (
    INCARNATION_MAX,
    SEQUENCE_MAX,
    UNIX_MS_MAX,
    BranchId,
    InvalidIdentifierError,
    Xid,
    XidSource,
    check_log_id,
    check_participant,
    check_request_id,
)

PARTS = st.tuples(st.integers(0, UNIX_MS_MAX), st.integers(1, INCARNATION_MAX), st.integers(0, SEQUENCE_MAX))
LOG_ID = "0123456789abcdef"


@given(PARTS)
def test_an_xid_keeps_its_parts_and_is_a_uuid_of_version_8(parts: tuple[int, int, int]) -> None:
    xid = Xid.make(*parts)
    assert (xid.unix_ms, xid.incarnation, xid.sequence) == parts
    as_uuid = uuid.UUID(bytes=bytes(xid))
    assert str(as_uuid) == str(xid)
    assert as_uuid.version == 8
    assert as_uuid.variant == uuid.RFC_4122
    assert Xid.parse(str(xid)) == xid


@given(st.lists(PARTS, max_size=5))
def test_columns_of_xids_are_cut_where_they_were_joined(parts: list[tuple[int, int, int]]) -> None:
    xids = [Xid.make(*each) for each in parts]
    assert Xid.unpack(b"".join(xids)) == xids


@pytest.mark.parametrize("parts", [(-1, 1, 1), (UNIX_MS_MAX + 1, 1, 1), (0, 0, 1), (0, 2**32, 1), (0, 1, 2**42)])
def test_parts_out_of_range_are_refused(parts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidIdentifierError, match="out of range"):
        Xid.make(*parts)


@pytest.mark.parametrize(
    "text",
    ["", "x", "123e4567-e89b-12d3-a456-426614174000", "018BCFE5-6800-8000-9C00-000000000001", "0" * 36, "\x00" * 36],
)
def test_other_text_is_not_an_xid(text: str) -> None:
    with pytest.raises(InvalidIdentifierError, match="UUID of version 8"):
        Xid.parse(text)


def test_a_column_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InvalidIdentifierError, match="17 bytes"):
        Xid.unpack(b"x" * 17)


def test_xids_rise_even_when_the_clock_goes_back() -> None:
    source = XidSource(7)
    xids = [source.next(at) for at in (1000, 2000, 1500, 1000, 3000)]
    assert xids == sorted(xids)
    assert len(set(xids)) == len(xids)
    assert [xid.unix_ms for xid in xids] == [1000, 2000, 2000, 2000, 3000]


def test_a_source_gives_whole_xids_however_early_its_clock_is() -> None:
    source = XidSource(7)
    assert [source.next(at) for at in (0, 0)] == [Xid.make(0, 7, 1), Xid.make(0, 7, 2)]


def test_a_source_knows_what_it_gave_out() -> None:
    source = XidSource(7)
    xid = source.next(1000)
    assert source.gave(xid)
    assert not source.gave(Xid.make(1000, 7, 2))
    assert not source.gave(Xid.make(1000, 8, 1))
    assert not source.gave(Xid.make(1000, 7, 0))


def test_a_gid_names_log_transaction_and_participant_and_reads_back() -> None:
    branch = BranchId(LOG_ID, Xid.make(1, 2, 3), "bookkeeper")
    assert branch.gid == f"pincex:{LOG_ID}:{branch.xid}:bookkeeper"
    assert BranchId.parse_gid(branch.gid) == branch
    assert len(BranchId(LOG_ID, branch.xid, "p" * 64).gid.encode()) < 200
    assert repr(branch.xid) == f"Xid({branch.xid})"


@pytest.mark.parametrize("gid", ["", "other", "pincex:x:y:z", f"pincex:{LOG_ID}:nope:a", f"a:{LOG_ID}:b:c"])
def test_foreign_gids_are_refused(gid: str) -> None:
    """R18."""
    with pytest.raises(InvalidIdentifierError):
        BranchId.parse_gid(gid)


def test_names_have_their_forms() -> None:
    assert check_participant("bookkeeper-2") == "bookkeeper-2"
    assert check_request_id("order:17/a") == "order:17/a"
    assert check_log_id(LOG_ID) == LOG_ID
    for check, bad in (
        (check_participant, ["", "Book", "2book", "a" * 65, "a:b", "a\n"]),
        (check_request_id, ["", " ", "a b", "a" * 129, "é", "a\n"]),
        (check_log_id, ["", "0" * 15, "G" * 16, "0" * 16 + "\n"]),
    ):
        for name in bad:
            with pytest.raises(InvalidIdentifierError):
                check(name)
