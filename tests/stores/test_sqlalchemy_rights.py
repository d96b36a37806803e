"""Once the tables are there, a user who may read and write rows is enough for a store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL, delete
from sqlalchemy.exc import DBAPIError

from asyncz.stores.base import BaseStore
from asyncz.stores.cluster import Fired, Node
from asyncz.stores.sqlalchemy import SQLAlchemyStore, make_tables
from asyncz.testing.store_suite_attempts import TryingAgain
from asyncz.testing.store_suite_basics import KeepingTasks
from asyncz.testing.store_suite_claims import ClaimingRuns
from asyncz.testing.store_suite_cluster import ClusterBase, firing
from asyncz.testing.store_suite_takeover import TakingOver
from asyncz.testing.store_suite_tools import NOON, make_task
from tests.services.databases import execute_on, new_database

from .sqlalchemy_tools import engine_for, opened

RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


@pytest.fixture(scope="class")
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A database for all cases of a class, of which its user owns nothing."""
    with new_database(request.cls.backend) as url:
        is_mysql = url.get_backend_name() == "mysql"
        name = f"u{str(url.database)[-12:]}"
        make = [
            f"CREATE ROLE {name} LOGIN",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "GRANT USAGE ON SCHEMA public TO " + name,
        ]
        drop = [f"DROP OWNED BY {name}", f"DROP ROLE {name}"]
        grant = f"GRANT {RIGHTS} ON ALL TABLES IN SCHEMA public TO {name}"
        if is_mysql:
            make, drop = [f"CREATE USER {name}"], [f"DROP USER {name}"]
            grant = f"GRANT {RIGHTS} ON {url.database}.* TO {name}"
        execute_on(url, *make)
        try:
            request.cls.owners_url, request.cls.url = url, url.set(username=name)
            request.cls.grant = grant
            yield
        finally:
            execute_on(url, *drop)


@pytest.mark.usefixtures("database")
class AsAUser(ClusterBase):
    """The tables are the owner's, who has made them."""

    backend: str
    owners_url: URL
    url: URL
    grant: str | None

    async def make_store(self) -> BaseStore:
        if self.grant is not None:
            async with opened(self.owners_url):
                execute_on(self.owners_url, self.grant)
            type(self).grant = None
        tables = make_tables()
        async with engine_for(self.url) as engine, engine.begin() as connection:
            for table in (tables.tasks, tables.nodes, tables.runs):
                await connection.execute(delete(table))
        return SQLAlchemyStore(self.url)

    async def another(self, store: BaseStore) -> SQLAlchemyStore:
        return SQLAlchemyStore(self.url)

    async def test_the_user_may_do_no_more(self) -> None:
        await self.make_store()
        for statement in ("CREATE TABLE more (x INT)", "DROP TABLE asyncz_tasks"):
            async with engine_for(self.url) as engine, engine.connect() as connection:
                with pytest.raises(DBAPIError, match=r"denied|must be owner"):
                    await connection.exec_driver_sql(statement)


class TestPostgreSQL(AsAUser, TakingOver):
    backend = "postgresql+asyncpg"


@pytest.mark.nightly
class TestMoreOfPostgreSQL(AsAUser, KeepingTasks, ClaimingRuns, TryingAgain):
    backend = "postgresql+asyncpg"


@pytest.mark.nightly
class TestMariaDB(AsAUser, KeepingTasks, ClaimingRuns, TakingOver, TryingAgain):
    backend = "mysql+asyncmy"


async def test_rights_to_rows_are_enough_on_mariadb() -> None:
    with new_database("mysql+asyncmy") as url:
        async with opened(url):
            pass
        name = f"u{str(url.database)[-12:]}"
        execute_on(url, f"CREATE USER {name}", f"GRANT {RIGHTS} ON {url.database}.* TO {name}")
        try:
            async with opened(url.set(username=name)) as store:
                await store.join_node(Node("one", "worker", "host", 1), 30)
                await store.add_tasks([make_task("a"), make_task("b")])
                tasks = await store.get_due_tasks(NOON)
                fired = await store.fire("one", "claim", [firing(task) for task in tasks])
                await store.remove_all_tasks()
        finally:
            execute_on(url, f"DROP USER {name}")
    assert fired == [Fired.WON, Fired.WON]
