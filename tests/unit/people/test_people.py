"""The people page, on a cache in memory with a fake clock: where each page comes from, and what a change does."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from examples.people import create_app
from examples.people.people import Base, People
from resilient.testing import FakeClock, MemoryCache


class World:
    """The application, and hands to reach behind it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        Base.metadata.create_all(self.engine)
        self.queries = 0
        event.listen(self.engine, "before_cursor_execute", self._asked)
        self.cache = MemoryCache(namespace="people", clock=self.clock)
        self.people = People(sessionmaker(self.engine), self.cache)
        for firstname, lastname in (("Ada", "Lovelace"), ("Byron", "Lovelace")):
            self.people.tell(firstname, lastname, f"about {firstname}")
        self.queries = 0
        self.client: FlaskClient = create_app(self.people).test_client()

    def _asked(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            self.queries += 1


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.cache.close()
    made.engine.dispose()


def test_a_page_is_loaded_once_per_ttl(world: World) -> None:
    """From the loader, then from the cache; after the ttl from the loader again."""
    assert "from loader" in world.client.get("/Ada/Lovelace").text
    assert "from shared" in world.client.get("/Ada/Lovelace").text
    assert world.queries == 1
    world.clock.advance(61)
    assert "from loader" in world.client.get("/Ada/Lovelace").text
    assert world.queries == 2


def test_nobody_is_taken_for_another(world: World) -> None:
    """One last name, two people; and a query in the address finds nobody, and asks the database once for that."""
    for firstname in ("Ada", "Byron", "Ada"):
        assert f"about {firstname}" in world.client.get(f"/{firstname}/Lovelace").text
    world.queries = 0
    assert [world.client.get("/Ada/' OR 1=1 --").status_code for _ in range(3)] == [404] * 3
    assert world.queries == 1


def test_a_change_is_seen_at_once(world: World) -> None:
    """On the person's page, and a new person on the list."""
    world.client.get("/Ada/Lovelace")
    assert world.client.get("/").text.count("<li>") == 2
    assert world.client.post("/Ada/Lovelace", data={"about": "wrote <programs>"}).status_code == 303
    assert "wrote &lt;programs&gt;" in world.client.get("/Ada/Lovelace").text
    world.client.post("/Grace/Hopper", data={"about": "found a moth"})
    assert world.client.get("/").text.count("<li>") == 3


def test_a_dead_cache_and_a_dead_database(world: World) -> None:
    """Without the cache the database answers; without the database the old page is shown, and says so."""
    with world.cache.outage():
        assert world.client.get("/Ada/Lovelace").status_code == 200
        world.client.post("/Ada/Lovelace", data={"about": "new"})
    world.clock.advance(1)
    assert "new" in world.client.get("/Ada/Lovelace").text
    assert "from shared" in world.client.get("/Ada/Lovelace").text
    with world.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE files RENAME TO away"))
    world.clock.advance(100)
    answer = world.client.get("/Ada/Lovelace")
    assert answer.status_code == 200
    assert "new" in answer.text
    assert ", stale" in answer.text
