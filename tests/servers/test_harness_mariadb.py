"""The cluster replicates, every fault handle bites, and healing undoes it."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import pytest

from resilient.errors import ConfigurationError, Unavailable
from resilient.testing.servers import MariaDbServer, Process

pymysql = pytest.importorskip("pymysql")


def as_app(node):
    """A connection as the plain user."""
    return pymysql.connect(
        host="127.0.0.1", port=node.port, user="app", password="app", database="app", read_timeout=10, ssl_disabled=True
    )


def write(node, number):
    """Insert a row as the plain user, committed."""
    with as_app(node) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO t VALUES (%s)", (number,))
        connection.commit()


def ids(node):
    """The rows a node holds."""
    return [number for (number,) in node.query("SELECT id FROM app.t ORDER BY id")]


def tables(node):
    """What stands in the databases of tests."""
    return node.query("SELECT table_name FROM information_schema.tables WHERE table_schema LIKE 'app%%'")


def test_writes_arrive_at_all_replicas(mariadb):
    """After wait_caught_up each replica holds what the primary holds, at the same position."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    assert [ids(node) for node in mariadb.replicas] == [[1], [1]]
    assert {node.position() for node in mariadb.nodes} == {mariadb.primary.position()}
    assert mariadb.url == mariadb.primary.url
    assert not mariadb.primary.replicates
    assert all(node.replicates for node in mariadb.replicas)


def test_every_test_finds_it_empty(mariadb):
    """What an earlier test left is gone on every node, databases named app_… as well."""
    assert [tables(node) for node in mariadb.nodes] == [[], [], []]
    mariadb.primary.query("CREATE DATABASE app_shard_a")
    mariadb.primary.query("CREATE TABLE app_shard_a.t (id INT PRIMARY KEY)")
    mariadb.primary.query("CREATE VIEW app.v AS SELECT * FROM app_shard_a.t")
    mariadb.heal()
    assert [node.query("SHOW DATABASES LIKE 'app\\_%%'") for node in mariadb.nodes] == [[], [], []]
    assert tables(mariadb.primary) == []


def test_replicas_refuse_writes_of_the_plain_user(mariadb):
    """read_only binds app, who may nevertheless make databases named app_…, and may not become more than it is."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    with pytest.raises(pymysql.err.OperationalError) as refused:
        write(mariadb.replicas[0], 2)
    assert refused.value.args[0] == 1290
    with as_app(mariadb.primary) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE app_mine")
        with pytest.raises(pymysql.err.MySQLError):
            cursor.execute("SET GLOBAL read_only = 0")


@pytest.mark.parametrize("handle", ["stop_replication", "stop_io"])
def test_a_stopped_replica_stays_behind_until_started(mariadb, handle):
    """Only the replica concerned misses the write; wait_caught_up says so; started, it catches up."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    behind, well = mariadb.replicas
    getattr(behind, handle)()
    write(mariadb.primary, 2)
    well.wait_for(mariadb.primary.position())
    assert ids(well) == [1, 2]
    assert ids(behind) == [1]
    with pytest.raises(Unavailable, match="had not applied"):
        mariadb.wait_caught_up(timeout=0.1)
    behind.start_replication()
    mariadb.wait_caught_up()
    assert ids(behind) == [1, 2]


def test_a_delayed_replica_is_late_and_not_lost(mariadb):
    """With a delay of 1 s a write is not there at once, and is there in the end; whole seconds only."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    late = mariadb.replicas[0]
    late.delay_replication(1)
    write(mariadb.primary, 2)
    assert ids(late) == [1]
    late.wait_for(mariadb.primary.position(), 10)
    assert ids(late) == [1, 2]
    late.delay_replication(0)
    assert late.row("SHOW SLAVE STATUS")["SQL_Delay"] == 0
    for nonsense in (0.5, -1):
        with pytest.raises(ConfigurationError):
            late.delay_replication(nonsense)


def test_committed_writes_survive_a_kill(mariadb):
    """kill -9 and restart: same port, same data, and replication goes on."""
    write(mariadb.primary, 1)
    port = mariadb.primary.port
    mariadb.primary.kill()
    with pytest.raises(Unavailable):
        mariadb.primary.query("SELECT 1")
    mariadb.primary.restart()
    assert mariadb.primary.port == port
    assert ids(mariadb.primary) == [1]
    write(mariadb.primary, 2)
    mariadb.wait_caught_up()
    assert [ids(node) for node in mariadb.replicas] == [[1, 2], [1, 2]]


def test_a_killed_replica_comes_back_as_one(mariadb):
    """Restarted, a replica is read-only and catches up by itself."""
    replica = mariadb.replicas[0]
    replica.kill()
    write(mariadb.primary, 1)
    replica.restart()
    mariadb.wait_caught_up()
    assert ids(replica) == [1]
    with pytest.raises(pymysql.err.OperationalError):
        write(replica, 2)


def test_a_frozen_node_does_not_answer(mariadb):
    """It takes connections and says nothing, until thawed."""
    replica = mariadb.replicas[0]
    replica.freeze()
    with pytest.raises(Unavailable):
        replica.query("SELECT 1", timeout=0.2)
    replica.thaw()
    assert replica.query("SELECT 1") == [(1,)]


def test_switchover_loses_nothing(mariadb):
    """A primary that runs is demoted, the replica promoted, and all follow it; the old primary refuses writes."""
    write(mariadb.primary, 1)
    old, new = mariadb.primary, mariadb.replicas[1]
    new.stop_replication()
    write(mariadb.primary, 2)
    assert mariadb.promote(1) is new
    assert mariadb.primary is new
    assert old in mariadb.replicas
    write(new, 3)
    mariadb.wait_caught_up()
    assert [ids(node) for node in mariadb.nodes] == [[1, 2, 3]] * 3
    with pytest.raises(pymysql.err.OperationalError):
        write(old, 4)


def test_failover_keeps_what_the_replica_had_received(mariadb):
    """The primary is killed while the replica lags: promoted, it has applied all that had arrived."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    old, new = mariadb.primary, mariadb.replicas[0]
    new.stop_replication()
    write(old, 2)
    received = old.position()
    while new.row("SHOW SLAVE STATUS")["Gtid_IO_Pos"] != received:
        pass  # the server has no event for what has arrived
    old.kill()
    mariadb.promote(0)
    assert ids(new) == [1, 2]
    assert old not in mariadb.replicas
    write(new, 3)
    mariadb.wait_caught_up()
    assert ids(mariadb.replicas[0]) == [1, 2, 3]


def test_a_lost_primary_takes_writes_until_it_rejoins(mariadb):
    """It comes back as what it was, which is the danger; rejoined, its own writes are gone and it follows."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    old = mariadb.primary
    old.freeze()
    mariadb.promote(0)
    write(mariadb.primary, 2)
    old.thaw()
    write(old, 99)
    assert ids(old) == [1, 99]
    assert mariadb.rejoin() is old
    mariadb.wait_caught_up()
    assert [ids(node) for node in mariadb.nodes] == [[1, 2]] * 3
    assert old in mariadb.replicas
    with pytest.raises(ConfigurationError):
        mariadb.rejoin()


FAULTS = {
    "a replica is killed": lambda cluster: cluster.replicas[0].kill(),
    "the primary is killed": lambda cluster: cluster.primary.kill(),
    "all are frozen": lambda cluster: [node.freeze() for node in cluster.nodes],
    "all are killed": lambda cluster: [node.kill() for node in cluster.nodes],
    "the data of one are gone": lambda cluster: cluster.replicas[1].stop(),
    "it is stopped": lambda cluster: cluster.stop(),
    "replication is stopped": lambda cluster: cluster.replicas[0].stop_replication(),
    "the link is cut": lambda cluster: cluster.replicas[1].stop_io(),
    "replication is delayed": lambda cluster: cluster.replicas[0].delay_replication(60),
    "the primary is read-only": lambda cluster: cluster.primary.query("SET GLOBAL read_only = 1"),
    "a replica is writable": lambda cluster: cluster.replicas[0].query("SET GLOBAL read_only = 0"),
    "a replica was written to": lambda cluster: cluster.replicas[0].query("CREATE TABLE app.errant (id INT)"),
    "a replica follows nobody": lambda cluster: [
        cluster.replicas[0].query(statement) for statement in ("STOP SLAVE", "RESET SLAVE ALL")
    ],
    "the primary was switched": lambda cluster: cluster.promote(0),
    "the primary was lost": lambda cluster: (cluster.primary.kill(), cluster.promote(1)),
    "the primary's binary log is gone": lambda cluster: cluster.primary.query("RESET MASTER"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_heals(mariadb, fault):
    """Whatever was done to it: three nodes that run, replicate, hold no table, and only one of them writable."""
    write(mariadb.primary, 1)
    FAULTS[fault](mariadb)
    mariadb.heal()
    assert [node.state for node in mariadb.nodes] == ["running"] * 3
    assert len(mariadb.replicas) == 2
    assert [tables(node) for node in mariadb.nodes] == [[], [], []]
    write(mariadb.primary, 5)
    mariadb.wait_caught_up()
    assert [ids(node) for node in mariadb.nodes] == [[5]] * 3
    assert sorted(node.query("SELECT @@GLOBAL.read_only")[0][0] for node in mariadb.nodes) == [0, 1, 1]
    assert mariadb.primary.query("SELECT @@GLOBAL.read_only") == [(0,)]


@pytest.mark.parametrize("where", ["primary", "replica"])
def test_it_heals_from_a_transaction_left_open(mariadb, where):
    """A connection that was forgotten inside a transaction does not hold up the next test."""
    write(mariadb.primary, 1)
    mariadb.wait_caught_up()
    with (
        as_app(mariadb.primary if where == "primary" else mariadb.replicas[0]) as forgotten,
        forgotten.cursor() as cursor,
    ):
        cursor.execute("SELECT * FROM t")
        mariadb.heal()
        assert [tables(node) for node in mariadb.nodes] == [[], [], []]


def test_a_single_server(mariadb):
    """MariaDbServer stands by itself: it takes writes, keeps them over a restart, and heals."""
    with MariaDbServer() as server:
        write(server, 1)
        server.restart()
        assert ids(server) == [1]
        server.query("SET GLOBAL read_only = 1")
        server.freeze()
        server.heal()
        assert tables(server) == []
        write(server, 2)


def test_processes_share_the_installed_data(mariadb, tmp_path):
    """Two processes that start servers at the same time from one folder install the data there once."""
    code = """
import sys, pathlib
from resilient.testing.servers import MariaDbServer, mariadb
template = mariadb._template
install = template._install
template._install = lambda folder: (print("installed", flush=True), install(folder))
with MariaDbServer(template=pathlib.Path(sys.argv[1])) as server:
    print(server.query("SELECT 1 + 1"))
"""
    with ExitStack() as both:
        command = [sys.executable, "-c", code, str(tmp_path)]
        processes = [both.enter_context(Process(command, name=f"process {number}")) for number in (1, 2)]
        assert [process.wait(50) for process in processes] == [0, 0]
        said = sorted(line for process in processes for line in process.output().split("\n") if line)
    assert said == ["[(2,)]", "[(2,)]", "installed"]


def test_a_refused_statement_is_the_drivers_error(mariadb):
    """Only a lost connection becomes Unavailable."""
    with pytest.raises(pymysql.err.ProgrammingError):
        mariadb.primary.query("SELECT * FROM app.nowhere")


def test_healing_what_is_well_restarts_nothing(mariadb):
    """Between tests nothing is started anew: the same processes go on, also that of a replica that only lagged."""
    before = [node.pid for node in mariadb.nodes]
    mariadb.heal()
    mariadb.replicas[0].stop_replication()
    mariadb.heal()
    assert [node.pid for node in mariadb.nodes] == before
