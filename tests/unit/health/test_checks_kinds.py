"""The checks of services, machines and other rooms, against fakes; real servers are in tests/servers."""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from resilient.cache import Cache
from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, InvalidInput
from resilient.health import Check, Health, Status, checks
from resilient.health.checks._aside import Aside
from resilient.health.checks._certificate import validity
from resilient.health.checks._redis import _judge
from resilient.policy import Breaker, Pipeline, Retry
from resilient.testing.clock import FakeClock

DAY = 86_400.0


def ask(check: Check):
    """What a report shows of one check."""
    health = Health()
    health.add("it", check, timeout=0.8)
    try:
        return health.ready().checks["it"]
    finally:
        health.close()


def until(probe: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


# --------------------------------------------------------------------------------------------------------- DynamoDB


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        ("ACTIVE", "pass", None),
        ("UPDATING", "warn", "updating"),
        ("CREATING", "fail", "creating"),
        ("DELETING", "fail", "deleting"),
        ("INACCESSIBLE_ENCRYPTION_CREDENTIALS", "fail", "unavailable"),
    ],
)
def test_a_table_is_judged_by_whether_it_serves(state, status, reason):
    """A table that is changed serves on; one that is made or deleted does not."""
    client = SimpleNamespace(describe_table=lambda TableName: {"Table": {"TableStatus": state}})
    found = ask(checks.dynamodb("orders", client))
    assert (found.status.value, found.reason) == (status, reason)


# ------------------------------------------------------------------------------------------------------------- SQS


class FakeCloudWatch:
    def __init__(self, *values: float) -> None:
        self.values, self.asked = list(values), []

    def get_metric_data(self, **request):
        self.asked.append(request)
        if not self.values:
            return {"MetricDataResults": [{"Id": "age", "Values": []}]}
        return {"MetricDataResults": [{"Id": "age", "Values": [self.values[0]]}]}


class FakeQueue:
    name = "jobs"
    depth = 1

    def attributes(self):
        return self


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [([30.0], "pass", None), ([301.0], "warn", "late"), ([], "pass", None)],
)
def test_a_message_that_waits_too_long_warns(values, status, reason):
    """As CloudWatch tells it; a queue of which it has no figure is one where nothing waits."""
    watch = FakeCloudWatch(*values)
    found = ask(checks.sqs(FakeQueue(), max_age=300, cloudwatch=watch))
    assert (found.status.value, found.reason) == (status, reason)
    assert found.values["oldest"] == (values[0] if values else 0.0)
    (request,) = watch.asked
    assert request["MetricDataQueries"][0]["MetricStat"]["Metric"]["Dimensions"][0]["Value"] == "jobs"


def test_cloudwatch_is_asked_once_a_minute():
    """Each request costs money, and it knows nothing new before that."""
    clock, watch = FakeClock(), FakeCloudWatch(1.0)
    check = checks.sqs(FakeQueue(), max_age=300, cloudwatch=watch, clock=clock)
    for _ in range(3):
        assert check.run().status is Status.PASS
    assert len(watch.asked) == 1
    clock.advance(60)
    assert check.run().values["oldest"] == 1.0
    assert len(watch.asked) == 2


def test_an_age_that_nobody_tells_warns():
    """The queue answered: that its age is unknown takes nothing out."""

    def broken(**_: object) -> None:
        raise ConnectionError("monitoring.eu-west-1")

    found = ask(checks.sqs(FakeQueue(), max_age=300, cloudwatch=SimpleNamespace(get_metric_data=broken)))
    assert (found.status, found.reason) == (Status.WARN, "age_unknown")


def test_cloudwatch_that_fails_is_asked_once_a_minute_too():
    """A refusal costs money as well, and is not mended by asking."""
    clock, asked = FakeClock(), []

    def broken(**_: object) -> None:
        asked.append(1)
        raise ConnectionError("monitoring.eu-west-1")

    check = checks.sqs(FakeQueue(), max_age=300, cloudwatch=SimpleNamespace(get_metric_data=broken), clock=clock)
    assert [check.run().reason for _ in range(3)] == ["age_unknown"] * 3
    assert len(asked) == 1
    clock.advance(60)
    assert check.run().reason == "age_unknown"
    assert len(asked) == 2


def test_cloudwatch_that_hangs_holds_nothing_up_and_is_asked_once():
    """The queue answered, so the check warns in time; the second time at once; and what is told late counts."""
    gate, asked = threading.Event(), []

    def hangs(**_: object) -> object:
        asked.append(1)
        gate.wait(20)
        return {"MetricDataResults": [{"Id": "age", "Values": [7.0]}]}

    health = Health(shared="fail")
    queue = checks.sqs(FakeQueue(), max_age=300, cloudwatch=SimpleNamespace(get_metric_data=hangs))
    health.add("jobs", queue, ttl=0, timeout=0.8)
    took = []
    for _ in range(2):
        report = health.ready().checks["jobs"]
        assert (report.status, report.reason, report.values["depth"]) == (Status.WARN, "age_unknown", 1)
        took.append(report.outcome.seconds)
    assert took[1] < took[0]
    assert len(asked) == 1
    gate.set()
    until(lambda: health.ready().checks["jobs"].values.get("oldest") == 7.0)
    assert (health.ready().word, len(asked)) == ("pass", 1)


def test_dead_letters_that_may_not_be_read_warn():
    """Whether the policy may not be read, or the queue it names: the queue itself answered."""
    counts: list[int] = []

    def refused() -> object:
        counts.append(1)
        raise PermissionError("AccessDenied on sqs.eu-west-1")

    silent = SimpleNamespace(attributes=refused)
    for find in (refused, lambda: silent):
        queue = SimpleNamespace(attributes=FakeQueue().attributes, dead_letters=find)
        found = ask(checks.sqs(queue))
        assert (found.status, found.reason, dict(found.values)) == (Status.WARN, "dead_letters_unknown", {"depth": 1})
    assert len(counts) == 2


def test_what_is_known_of_a_queue_is_told_before_what_is_not():
    """An age that nobody tells hides no dead letter."""

    def broken(**_: object) -> None:
        raise ConnectionError("monitoring.eu-west-1")

    queue = SimpleNamespace(name="jobs", attributes=FakeQueue().attributes, dead_letters=FakeQueue)
    found = ask(checks.sqs(queue, max_age=300, cloudwatch=SimpleNamespace(get_metric_data=broken)))
    assert (found.reason, found.values["dead_letters"]) == ("dead_letters", 1)


def test_a_question_under_way_is_asked_anew_in_a_forked_child():
    """The thread that asks is the parent's."""
    gate, asked = threading.Event(), []

    def hangs() -> int:
        asked.append(1)
        gate.wait(20)
        return len(asked)

    aside = Aside("age", hangs, keep=60.0, clock=SYSTEM)
    aside.begin()
    assert aside.known(within=0.0) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, as there should be
        child = os.fork()
    if child == 0:
        gate.set()
        aside.begin()
        os._exit(0 if aside.known(within=20.0) == (2,) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.set()
    assert aside.known(within=20.0) == (1,)


def test_a_fork_in_the_moment_of_an_answer_hangs_no_child():
    """Whoever gave it in the parent may have held its lock: the child asks nothing of it."""
    aside = Aside("age", lambda: 1, keep=60.0, clock=SYSTEM)
    aside.begin()
    assert aside.known(within=20.0) == (1,)
    held = aside._answer
    forked = threading.Thread(target=aside._reset, daemon=True)  # what the child calls first of all
    with held._condition:
        forked.start()
        forked.join(10)
        assert not forked.is_alive()
    aside.begin()
    assert aside.known(within=20.0) == (1,)
    assert aside._answer is not held


def test_the_age_of_a_queue_without_a_name_is_refused():
    """CloudWatch knows queues by name only."""
    with pytest.raises(ConfigurationError):
        checks.sqs(SimpleNamespace(attributes=lambda: None), max_age=300, cloudwatch=FakeCloudWatch())


# ------------------------------------------------------------------------------------------------------ certificate


def certificate(begins: float, ends: float) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    when = [dt.datetime.fromtimestamp(each, dt.UTC).replace(tzinfo=None) for each in (begins, ends)]
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(when[0]).not_valid_after(when[1])
    return made.sign(key, hashes.SHA256())


def pem(path, *made: x509.Certificate):
    path.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in made))
    return path


@pytest.mark.parametrize(
    ("begins", "ends", "status", "reason"),
    [
        (-1, 90, "pass", None),
        (-80, 13, "warn", "expiring"),
        (-90, -1, "fail", "expired"),
        (1, 90, "fail", "not_yet_valid"),
    ],
)
def test_a_certificate_is_judged_by_its_time(tmp_path, begins, ends, status, reason):
    """It warns two weeks before its end, and fails outside its time; the days left are measured."""
    clock = FakeClock(wall=1_750_000_000.0)
    now = clock.wall()
    path = pem(tmp_path / "shop.pem", certificate(now + begins * DAY, now + ends * DAY))
    found = ask(checks.certificate(path, clock=clock))
    assert (found.status.value, found.reason) == (status, reason)
    assert found.values["days"] == ends


@pytest.mark.parametrize("ends", [2_524_607_999.0, 2_524_608_000.0, 4_102_444_800.0], ids=["2049", "2050", "2100"])
def test_both_forms_of_a_date_are_read(ends):
    """Years from 2050 on are written with four digits."""
    made = certificate(1_700_000_000.0, ends)
    assert validity(made.public_bytes(serialization.Encoding.DER)) == (1_700_000_000.0, ends)


@pytest.mark.parametrize("junk", [b"", b"\x30", b"\x30\x03\x02\x01", b"\x30\x82\xff\xff\x00", b"\x04\x01\x00" * 9])
def test_what_is_no_certificate_is_an_error(junk):
    """Whatever the bytes are, the error is one of ours."""
    with pytest.raises(InvalidInput):
        validity(junk)


def test_a_certificate_cut_short_anywhere_is_an_error():
    """Each prefix of one is refused, or tells nothing wrong."""
    made = certificate(1_700_000_000.0, 1_800_000_000.0).public_bytes(serialization.Encoding.DER)
    for length in range(len(made)):
        with pytest.raises(InvalidInput):
            validity(made[:length])


def test_a_file_without_a_certificate_fails(tmp_path):
    """So does one that is not there; the path is not told."""
    (tmp_path / "secret-name.pem").write_text("-----BEGIN PRIVATE KEY-----")
    for name in ("secret-name.pem", "secret-none.pem"):
        found = ask(checks.certificate(tmp_path / name))
        assert found.status is Status.FAIL
        assert "secret" not in repr(found)


@pytest.mark.parametrize("target", ["shop.example", "shop.example:https", ":443", ""])
def test_a_place_that_is_none_is_refused(target):
    """It is found when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.certificate(target)


# ------------------------------------------------------------------------------------------------------------ clock


@pytest.mark.parametrize(
    ("skew", "status"), [(0, "pass"), (4.9, "pass"), (-4.9, "pass"), (5.1, "warn"), (-5.1, "warn")]
)
def test_a_clock_that_is_off_warns(skew, status):
    """In either direction; it never fails."""
    clock = FakeClock()
    found = ask(checks.clock(lambda: clock.wall() - skew, clock=clock))
    assert (found.status.value, found.values["skew"]) == (status, skew)


def test_a_slow_source_counts_in_favour_of_the_clock():
    """What the way there leaves open is not held against it."""
    clock = FakeClock()

    def slow() -> float:
        told = clock.wall() - 4.5
        clock.advance(2.0)
        return told

    assert ask(checks.clock(slow, clock=clock)).status is Status.PASS


def test_a_source_that_is_away_warns():
    """That says nothing of this clock."""
    found = ask(checks.clock("http://127.0.0.1:1/"))
    assert (found.status, found.reason) == (Status.WARN, "unreachable")


@pytest.mark.parametrize("kind", ["listener", "function"])
def test_a_source_that_does_not_answer_takes_no_instance_out(kind):
    """It accepts and is silent, or hangs in a function: a warning in time, also under the strict rule."""
    gate = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        health = Health(shared="fail")
        health.add("clock", checks.clock(url if kind == "listener" else lambda: gate.wait(20)), ttl=0, timeout=0.15)
        for _ in range(3):
            report = health.ready()
            assert (report.http_status, report.checks["clock"].status) == (200, Status.WARN)
            assert report.checks["clock"].reason in {"timeout", "unreachable"}
        gate.set()


@pytest.mark.parametrize(
    "check",
    [
        checks.breaker(Pipeline("orders", Breaker())),
        checks.pipelines(Pipeline("orders", Breaker())),
        checks.cache(Cache()),
        checks.clock(time.time),
    ],
    ids=["breaker", "pipelines", "cache", "clock"],
)
def test_what_never_fails_is_held_to_it(check):
    """Whatever such a check meets, its hanging and raising included, it only warns."""
    assert check.at_worst is Status.WARN


@pytest.mark.parametrize("source", ["ftp://x", "x", 3, None])
def test_what_tells_no_time_is_refused(source):
    """It is found when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.clock(source)


# ------------------------------------------------------------------------------------------------- disk and heartbeat


@pytest.mark.parametrize(
    ("free", "files", "status", "reason"),
    [
        (50, 50, "pass", None),
        (9, 50, "warn", "low"),
        (50, 9, "warn", "low"),
        (1, 50, "fail", "full"),
        (50, 0, "fail", "full"),
    ],
)
def test_a_disk_without_room_for_bytes_or_files_is_told(monkeypatch, free, files, status, reason):
    """The scarcer of the two counts."""
    found = SimpleNamespace(f_bavail=free, f_blocks=100, f_favail=files, f_files=100)
    monkeypatch.setattr("resilient.health.checks._process.os.statvfs", lambda path: found)
    told = ask(checks.disk("/srv"))
    assert (told.status.value, told.reason) == (status, reason)


def test_a_disk_that_counts_no_files_has_room_for_them(monkeypatch):
    """Some file systems do not."""
    found = SimpleNamespace(f_bavail=50, f_blocks=100, f_favail=0, f_files=0)
    monkeypatch.setattr("resilient.health.checks._process.os.statvfs", lambda path: found)
    assert ask(checks.disk()).status is Status.PASS


def test_a_folder_that_is_not_there_fails(tmp_path):
    """A volume that is not mounted is no room."""
    assert ask(checks.disk(tmp_path / "gone")).status is Status.FAIL


@pytest.mark.parametrize("limits", [{"warn_free": 0.1, "fail_free": 0.2}, {"warn_free": 2}, {"fail_free": -1}])
def test_wrong_limits_of_a_disk_are_refused(limits):
    """They are found when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.disk("/", **limits)


def test_a_heartbeat_in_a_file_is_seen_by_another_process(tmp_path):
    """Until the first beat there is none, and that fails; so does an old one."""
    clock = FakeClock(wall=time.time())
    worker = checks.heartbeat(10, path=tmp_path / "beat", clock=clock)
    other = checks.heartbeat(10, path=tmp_path / "beat", clock=clock)
    assert (ask(other).status, ask(other).reason) == (Status.FAIL, "silent")
    worker.beat()
    assert ask(other).status is Status.PASS
    clock.advance(11)
    assert ask(other).reason == "silent"
    worker.beat()
    assert ask(other).status is Status.PASS


# -------------------------------------------------------------------------------------------------------- pipelines


def fails() -> None:
    raise ConnectionRefusedError


def test_pipelines_tell_what_traffic_met():
    """An open breaker warns with its state; too many failures warn; nobody is asked."""
    orders = Pipeline("orders", Retry(attempts=1), Breaker(consecutive=3))
    mail = Pipeline("mail", Retry(attempts=1))
    check = checks.pipelines(orders, mail, min_calls=4)
    assert ask(check).status is Status.PASS
    for _ in range(4):
        with pytest.raises(ConnectionRefusedError):
            mail.call(fails)
    found = ask(check)
    assert (found.reason, dict(found.values)) == ("failing", {"open": 0, "failed": 1.0})
    for _ in range(4):
        mail.call(lambda: None)
    assert ask(check).status is Status.PASS
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            orders.call(fails)
    found = ask(check)
    assert (found.status, found.reason, found.values["open"]) == (Status.WARN, "open", 1)


def test_few_calls_say_nothing():
    """They are kept until there are enough of them."""
    mail = Pipeline("mail", Retry(attempts=1))
    check = checks.pipelines(mail, min_calls=4)
    for count in range(1, 5):
        with pytest.raises(ConnectionRefusedError):
            mail.call(fails)
        assert (ask(check).reason == "failing") is (count == 4)


@pytest.mark.parametrize(
    ("given", "options"),
    [((), {}), ((object(),), {}), ((Pipeline("mail"),), {"max_failed": 2}), ((Pipeline("mail"),), {"min_calls": 0})],
    ids=["none", "no pipeline", "part", "calls"],
)
def test_what_is_no_pipeline_is_refused(given, options):
    """It is found when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.pipelines(*given, **options)


# ------------------------------------------------------------------------------------------------------------ cache


class Counts:
    def __init__(self) -> None:
        self.hits = self.misses = self.stale = 0
        self.state = "up"

    def stats(self) -> Counts:
        return self


def test_a_cold_cache_and_one_that_is_away_warn():
    """It never fails: without it the application is slower, not wrong."""
    told = Counts()
    check = checks.cache(told, min_hit_ratio=0.8, min_reads=10)
    assert dict(ask(check).values) == {}
    told.hits, told.misses = 5, 5
    found = ask(check)
    assert (found.status, found.reason, dict(found.values)) == (Status.WARN, "cold", {"hit_ratio": 0.5})
    told.hits += 9
    told.stale += 1
    assert (ask(check).status, ask(check).values["hit_ratio"]) == (Status.PASS, 1.0)
    told.state = "down"
    assert (ask(check).status, ask(check).reason) == (Status.WARN, "down")


def test_a_real_cache_tells_its_hits():
    """The check fits the room it is for."""
    with Cache(namespace="it", ttl=60) as cache:
        check = checks.cache(cache, min_reads=4)
        for _ in range(4):
            cache.get_or_load("a", lambda: 1)
        assert ask(check).values["hit_ratio"] == 0.75


@pytest.mark.parametrize("options", [{"min_hit_ratio": 2}, {"min_reads": 0}])
def test_wrong_limits_of_a_cache_are_refused(options):
    """They are found when the check is made."""
    with pytest.raises(ConfigurationError):
        checks.cache(Counts(), **options)
    with pytest.raises(ConfigurationError):
        checks.cache(object())


# ------------------------------------------------------------------------------------------- databases and Clusters


def test_what_cannot_be_asked_of_a_database_is_refused():
    """A role needs a server that has one; a word that is no role is none."""
    for role in ("primary", "replica"):
        with pytest.raises(ConfigurationError):
            checks.sqlalchemy("sqlite://", role=role)
    with pytest.raises(ConfigurationError):
        checks.sqlalchemy(sa.create_engine("sqlite://"), role="leader")


def test_a_connection_is_made_anew_now_and_then(tmp_path, monkeypatch):
    """So that the check follows a name that leads elsewhere by now."""
    clock = FakeClock()
    monkeypatch.setattr("resilient.health.checks._sql.SYSTEM", clock)
    engine, made = sa.create_engine(f"sqlite:///{tmp_path}/app.db"), []
    sa.event.listen(engine, "connect", lambda *_: made.append(1))
    check = checks.sqlalchemy(engine)
    for _ in range(3):
        assert check.run().status is Status.PASS
    assert len(made) == 1
    clock.advance(300)
    assert check.run().status is Status.PASS
    assert len(made) == 2
    check.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("info", "status", "reason"),
    [
        ("cluster_state:ok\r\ncluster_slots_ok:16384\r\ncluster_known_nodes:6\r\n", "pass", None),
        ("cluster_state:ok\r\ncluster_slots_ok:11000\r\ncluster_known_nodes:6\r\n", "warn", "slots"),
        ("cluster_state:fail\r\ncluster_slots_ok:11000\r\ncluster_known_nodes:6\r\n", "fail", "cluster_down"),
        ("", "fail", "cluster_down"),
    ],
)
def test_a_cluster_is_judged_by_what_it_serves(info, status, reason):
    """All slots: pass; some: a warning; none: a failure."""
    found = _judge(info)
    assert (found.status.value, found.reason) == (status, reason)


def test_a_cluster_is_not_asked_whether_it_takes_writes():
    """Its primaries change by themselves."""
    with pytest.raises(ConfigurationError):
        checks.redis("redis+cluster://127.0.0.1:6379", writable=True)
