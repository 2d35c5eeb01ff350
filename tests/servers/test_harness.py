"""Each server answers, each fault handle bites, and healing undoes it."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from resilient.errors import Unavailable
from resilient.testing.servers import EmbeddedRedis, Gunicorn, RedisServer


@pytest.fixture(params=[RedisServer, EmbeddedRedis])
def redis(request):
    """Each kind of Redis, by itself, so that it may be stopped."""
    if request.param.missing():
        pytest.skip(f"missing server: {request.param.missing()}")
    with request.param() as server:
        yield server


def test_redis_keeps_nothing_over_a_kill(redis):
    """Killed, it refuses; restarted, it answers on the same port and is empty."""
    port = redis.port
    redis.command("SET", "a", "1")
    assert redis.command("DBSIZE") == ":1"
    redis.kill()
    with pytest.raises(Unavailable):
        redis.command("PING")
    redis.restart()
    assert redis.port == port
    assert redis.command("DBSIZE") == ":0"


def test_redis_freezes_and_thaws(redis):
    """Frozen, it takes the connection and does not answer; thawed, it has kept its data."""
    redis.command("SET", "a", "1")
    redis.freeze()
    with pytest.raises(Unavailable):
        redis.command("PING", timeout=0.1)
    redis.thaw()
    assert redis.command("DBSIZE") == ":1"


def test_redis_refuses_nonsense(redis):
    """An error that comes back is an error here, not an answer."""
    with pytest.raises(Unavailable, match="NOSUCHCOMMAND"):
        redis.command("NOSUCHCOMMAND")


def break_by(fault, server):
    """Do it; "nothing" is a fault too, since healing must not hurt what is well."""
    if fault != "nothing":
        getattr(server, fault)()


@pytest.mark.parametrize("fault", ["nothing", "freeze", "kill", "stop"])
def test_redis_heals(redis, fault):
    """Whatever was done to it: running and empty."""
    redis.command("SET", "a", "1")
    break_by(fault, redis)
    redis.heal()
    assert redis.command("DBSIZE") == ":0"


def test_embedded_redis_serves_the_real_client():
    """The stand-in for machines without Redis speaks to redis-py over several connections, and errors end none."""
    if EmbeddedRedis.missing():
        pytest.skip(f"missing server: {EmbeddedRedis.missing()}")
    redis = pytest.importorskip("redis")
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as one, redis.Redis.from_url(server.url) as two:
        one.set("a", "1", ex=60)
        assert two.get("a") == b"1"
        assert 0 < two.ttl("a") <= 60
        name = one.client_id()
        with pytest.raises(redis.ResponseError):
            one.incr("a", "x")
        assert one.client_id() == name, "an error reply cost the connection"


def test_moto_has_s3_and_sqs(moto_server):
    """Its clients need no configuration, sign with SigV4, and are made once."""
    s3 = moto_server.client("s3")
    s3.create_bucket(Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": moto_server.region})
    assert "X-Amz-Signature" in s3.generate_presigned_url("get_object", Params={"Bucket": "pictures", "Key": "a"})
    assert moto_server.client("s3") is s3
    assert moto_server.client("s3", read_timeout=1) is not s3
    queue = moto_server.client("sqs").create_queue(QueueName="jobs")["QueueUrl"]
    moto_server.client("sqs").send_message(QueueUrl=queue, MessageBody="hello")
    received = moto_server.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=1)
    assert [message["Body"] for message in received["Messages"]] == ["hello"]


def test_moto_keeps_what_is_in_the_environment_apart(moto_server):
    """Its environment leads boto3 of another process to it, and holds no credential that means anything."""
    assert moto_server.env["AWS_ENDPOINT_URL"] == moto_server.url
    assert moto_server.env["AWS_SECRET_ACCESS_KEY"] == "test"


def test_moto_delivers_a_message_once_to_many_receivers(moto_server):
    """Eight receivers at a time get fifty messages, each of them once."""
    from resilient.runtime import WorkerPool

    sqs = moto_server.client("sqs")
    queue = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    for start in range(0, 50, 10):
        entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(start, start + 10)]
        sqs.send_message_batch(QueueUrl=queue, Entries=entries)

    def receive():
        bodies = []
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=3).get("Messages"):
            bodies += [message["Body"] for message in messages]
        return bodies

    pool = WorkerPool("receivers", size=8)
    received = [body for job in [pool.submit(receive) for _ in range(8)] for body in job.result(30)]
    pool.close(5)
    assert sorted(map(int, received)) == list(range(50))


def test_moto_waits_for_a_message(moto_server):
    """A long poll returns when a message comes, not at its end, and does not block other calls meanwhile."""
    from resilient.runtime import WorkerPool

    sqs = moto_server.client("sqs")
    queue = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    pool = WorkerPool("receiver", size=1)
    begun = time.monotonic()
    waiting = pool.submit(sqs.receive_message, QueueUrl=queue, WaitTimeSeconds=20)
    sqs.send_message(QueueUrl=queue, MessageBody="hello")
    assert waiting.result(15)["Messages"][0]["Body"] == "hello"
    assert time.monotonic() - begun < 15
    empty = time.monotonic()
    assert "Messages" not in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1)
    assert time.monotonic() - empty >= 0.9
    pool.close(5)


@pytest.mark.parametrize("fault", ["nothing", "freeze", "kill", "stop"])
def test_moto_heals(moto_server, fault):
    """Whatever was done to it: running and empty, and its clients still work."""
    sqs = moto_server.client("sqs")
    sqs.create_queue(QueueName="jobs")
    break_by(fault, moto_server)
    moto_server.heal()
    assert "QueueUrls" not in moto_server.client("sqs").list_queues()


def test_frozen_moto_does_not_answer(moto_server):
    """A client with a time limit gives up on it."""
    from botocore.exceptions import ReadTimeoutError

    moto_server.freeze()
    with pytest.raises(ReadTimeoutError):
        moto_server.client("sqs", read_timeout=0.2).list_queues()


APP = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {os.environ.get('COLOUR')}".encode()]
"""


@pytest.fixture
def web(tmp_path):
    """An application under gunicorn, with two workers."""
    if Gunicorn.missing():
        pytest.skip(f"missing server: {Gunicorn.missing()}")
    (tmp_path / "sepia.py").write_text(APP)
    with Gunicorn("sepia:app", cwd=tmp_path, env={"COLOUR": "brown"}, workers=2) as server:
        yield server


def test_gunicorn_serves_an_application(web):
    """It runs in its folder with its environment, in workers that are not the master."""
    status, body = web.get("/")
    assert status == 200
    worker, colour = body.decode().split()
    assert colour == "brown"
    assert int(worker) != web.pid
    with urllib.request.urlopen(web.url, timeout=5) as answer:
        assert answer.status == 200


def test_killing_gunicorn_kills_its_workers(web):
    """No worker goes on answering for a dead master."""
    worker = int(web.get("/")[1].split()[0])
    web.kill()
    with pytest.raises(ConnectionRefusedError):
        web.get("/")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(web.url, timeout=1)
    assert worker_is_gone(worker)
    web.restart()
    assert web.get("/")[0] == 200


def worker_is_gone(pid):
    """Gone, or an entry that its new parent has not removed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except FileNotFoundError:
        return True


def test_freezing_gunicorn_freezes_its_workers(web):
    """Nobody answers until it is thawed."""
    web.freeze()
    with pytest.raises(TimeoutError):
        web.get("/", timeout=0.2)
    web.thaw()
    assert web.get("/")[0] == 200


def test_an_application_that_cannot_be_imported_is_reported(tmp_path):
    """The error holds gunicorn's words, and nothing is left running."""
    if Gunicorn.missing():
        pytest.skip(f"missing server: {Gunicorn.missing()}")
    server = Gunicorn("no_such_module:app", cwd=tmp_path)
    with pytest.raises(Unavailable, match="no_such_module"):
        server.start()
    server.stop()


def test_the_whole_start_up_is_within_its_budget(redis_server, mariadb, moto_server, server_start_times):
    """All servers of a run start side by side in less than 15 seconds."""
    assert set(server_start_times) >= {"redis_server", "mariadb", "moto_server"}
    begun = min(start for start, _ in server_start_times.values())
    ended = max(end for _, end in server_start_times.values())
    assert ended - begun < 15 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
