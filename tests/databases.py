"""Empty databases of one server, lent to tests: one that comes back is emptied and lent again.

Making a database writes a catalog of three hundred files, and dropping it waits until all of them are on disk: that
took longer than most tests that want one. What cannot be made as new is dropped all the same.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import psycopg
from psycopg import sql

from coordinator.embedded import EmbeddedPostgres

_END_OTHERS: Final = """
select pg_terminate_backend(pid, 10000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""
_SCHEMAS: Final = r"""
select nspname from pg_namespace where nspname not like 'pg\_%' and nspname <> 'information_schema'
"""
# As initdb makes it.
_PUBLIC: Final = "create schema public authorization pg_database_owner; grant usage on schema public to public"
_PREPARED: Final = "select gid from pg_prepared_xacts where database = current_database()"
# Nothing in it that initdb did not make (whose numbers end below 16384), nor anything said of the database itself.
_IS_AS_NEW: Final = """
select not exists (
    select from (
        select oid from pg_class union all select oid from pg_proc union all select oid from pg_type
        union all select oid from pg_extension union all select oid from pg_event_trigger
        union all select oid from pg_publication union all select oid from pg_default_acl
        union all select oid from pg_largeobject_metadata
    ) as made where oid >= 16384
) and it.datacl is null and it.datconnlimit = -1
  and not exists (select from pg_db_role_setting where setdatabase = it.oid)
from pg_database it where datname = current_database()
"""


class Databases:
    """The databases of one server that nobody has just now. Mutable, for one thread at a time."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._free = deque[str]()

    def lend(self, name: str) -> str:
        """Have an empty database of this name, which no other has had, and return its DSN."""
        if not self._free:
            return self._server.create_database(name)
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            # The one that came back first: whoever emptied it has left by now.
            renamed = (sql.Identifier(self._free.popleft()), sql.Identifier(name))
            connection.execute(sql.SQL("alter database {} rename to {}").format(*renamed))
        return self._server.dsn(name)

    def take_back(self, name: str) -> None:
        """Empty it, whoever is connected, with its prepared transactions; drop it where that does not make it new."""
        try:
            is_as_new = self._empty(name)
        except psycopg.Error:
            is_as_new = False
        if is_as_new:
            self._free.append(name)
        else:
            self._server.drop_database(name)

    def _empty(self, name: str) -> bool:
        with psycopg.connect(self._server.dsn(name), autocommit=True) as connection:
            connection.execute(_END_OTHERS)
            for (gid,) in connection.execute(_PREPARED).fetchall():
                connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
            schemas = [sql.Identifier(schema) for (schema,) in connection.execute(_SCHEMAS).fetchall()]
            with connection.transaction():
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.SQL(", ").join(schemas)))
                connection.execute(_PUBLIC)
            connection.execute("select pg_stat_reset()")
            return connection.execute(_IS_AS_NEW).fetchone() == (True,)
