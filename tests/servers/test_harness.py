"""The servers do what their handles say, and come back from it."""

from __future__ import annotations


def test_redis_answers(redis_server):
    """A Redis fixture answers."""
    assert redis_server.command("PING") == "+PONG"


def test_mariadb_replicates(mariadb):
    """A write on the primary arrives at both replicas."""
    mariadb.primary.query("CREATE TABLE app.t (id INT PRIMARY KEY)")
    mariadb.primary.query("INSERT INTO app.t VALUES (1)")
    mariadb.wait_caught_up()
    assert [node.query("SELECT id FROM app.t") for node in mariadb.replicas] == [[(1,)], [(1,)]]


def test_mariadb_is_empty_again(mariadb):
    """What an earlier test left is gone on every node."""
    assert [
        node.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'app'")
        for node in mariadb.nodes
    ] == [[], [], []]


def test_moto_answers(moto_server):
    """A moto fixture takes a bucket and a queue."""
    moto_server.client("s3").create_bucket(
        Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    assert moto_server.client("sqs").create_queue(QueueName="q")["QueueUrl"].startswith(moto_server.url)
