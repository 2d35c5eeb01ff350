"""The routes: statuses, headers, and who gets what."""

import uuid

import pytest

from examples.imagery.sepia import sample
from resilient.errors import OutcomeUnknown, Unavailable

SOME_ID = "5f0c2c4e-8a51-4c1e-9f5e-0b6a1d2e3f4a"
"""An id that stands for any; fixed, so that every worker of a parallel run collects the same tests."""


@pytest.fixture
def browser(world):
    """A browser of the application."""
    return world.app.test_client()


def make(browser, image_id=None):
    image_id = image_id or str(uuid.uuid4())
    answer = browser.post("/images", json={"id": image_id, "owner": "alice", "title": "Evening"})
    assert answer.status_code == 201
    return image_id


def upload(world, browser, image_id):
    ticket = browser.post(f"/images/{image_id}/upload?owner=alice").get_json()
    assert world.s3.post_form(ticket["url"], ticket["fields"], sample(1, 40, 30)) == 201
    return browser.post(f"/images/{image_id}/confirm?owner=alice", json={"token": ticket["token"]})


def test_the_whole_way_over_http(world, browser):
    """Create, upload, confirm, look, fetch: each route does its part, and a late upload is a conflict."""
    image_id = make(browser)
    assert upload(world, browser, image_id).get_json()["state"] == "uploaded"
    world.work()
    assert browser.get(f"/images/{image_id}").get_json()["state"] == "processed"
    link = browser.get(f"/images/{image_id}/result?owner=alice").get_json()
    assert world.s3.open_link(link["url"])[0] == 200
    assert browser.post(f"/images/{image_id}/upload?owner=alice").status_code == 409
    world.work()
    events = browser.get("/users/alice/timeline").get_json()["events"]
    assert [each["what"] for each in events] == ["created", "uploaded", "processed"]
    assert len(browser.get("/timeline").get_json()["events"]) == 3


def test_the_answer_says_where_it_came_from(browser, world):
    """Lists tell the server that was read; single images tell whether the cache answered."""
    image_id = make(browser)
    world.clock.advance(1)
    other = world.app.test_client()
    assert other.get("/images").headers["Imagery-Source"] == "primary"
    sources = [other.get(f"/images/{image_id}").headers["Imagery-Source"] for _ in range(2)]
    assert sources == ["primary", "local"]
    assert other.get("/users/alice/timeline").headers["Imagery-Source"] == world.services.shards.shard_for("alice")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("post", "/images", {"id": "17", "owner": "alice", "title": "t"}, 400),
        ("post", "/images", ["no object"], 400),
        ("get", f"/images/{SOME_ID}", None, 404),
        ("post", f"/images/{SOME_ID}/upload", None, 404),
        ("get", "/nowhere", None, 404),
    ],
)
def test_bad_requests(browser, method, path, body, status):
    """What makes no sense is told with a 4xx, never with a 5xx."""
    assert getattr(browser, method)(path, json=body).status_code == status


def test_bad_tokens(world, browser):
    """A forged token is refused, a missing one too, and nothing changes."""
    image_id = make(browser)
    for body in ({"token": "forged.token"}, {"token": ""}, {}):
        assert browser.post(f"/images/{image_id}/confirm?owner=alice", json=body).status_code == 403
    assert browser.post(f"/images/{image_id}/confirm?owner=alice", json={"token": 17}).status_code in {400, 403}
    assert browser.get(f"/images/{image_id}").get_json()["version"] == 0


def test_an_upload_belongs_to_who_created_the_image(world, browser):
    """A form and a confirmation are for the owner alone: a stranger gets 403, and nothing changes."""
    image_id = make(browser)
    ticket = browser.post(f"/images/{image_id}/upload?owner=alice").get_json()
    assert world.s3.post_form(ticket["url"], ticket["fields"], sample(1, 40, 30)) == 201
    for user in ("", "?owner=", "?owner=bob"):
        form = browser.post(f"/images/{image_id}/upload{user}")
        done = browser.post(f"/images/{image_id}/confirm{user}", json={"token": ticket["token"]})
        assert (form.status_code, done.status_code) == (403, 403)
        assert form.get_json() == {"error": "refused"}
    assert browser.get(f"/images/{image_id}").get_json()["version"] == 0
    assert browser.post(f"/images/{image_id}/confirm?owner=alice", json={"token": ticket["token"]}).status_code == 200


def test_no_link_for_strangers(world, browser):
    """The result is its owner's."""
    image_id = make(browser)
    upload(world, browser, image_id)
    world.work()
    for reader in ("", "?owner=bob"):
        answer = browser.get(f"/images/{image_id}/result{reader}")
        assert answer.status_code == 403
        assert "url" not in answer.get_json()


@pytest.mark.parametrize("error", [Unavailable("the shard is away"), OutcomeUnknown("no answer to a commit")])
def test_what_may_be_asked_again_says_so(world, browser, monkeypatch, error):
    """A part that does not answer gives 503 with Retry-After, and nothing of the error's text."""

    def fail(**_):
        raise error

    monkeypatch.setattr(world.services.shards, "session", fail)
    answer = browser.get("/users/alice/timeline")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert error.message not in answer.text


def test_page_parts_and_health(browser):
    """The page is there with its script, the parts are told, and the health routes answer."""
    for path, part in (("/", b"<title>Imagery</title>"), ("/static/app.js", b"use strict")):
        with browser.get(path) as answer:
            assert part in answer.data
    assert {each["name"] for each in browser.get("/parts").get_json()["checks"]} == {"shard north", "shard south"}
    assert browser.get("/livez").status_code == browser.get("/readyz").status_code == 200


def test_the_head_of_the_page_wraps_on_a_narrow_screen(browser):
    """Title, sentence and choice of user stand below each other rather than squeezed or beyond the edge."""
    with browser.get("/static/style.css") as answer:
        rules = answer.data.decode().splitlines()
    assert "flex-wrap: wrap" in next(rule for rule in rules if rule.startswith("header {"))
    assert "flex: 1 1 16rem" in next(rule for rule in rules if rule.startswith("header p {"))


def test_a_user_reads_own_writes_through_the_cookie(make_world):
    """The cookie carries what a user wrote, so that the next request does not go to a replica that lacks it."""
    world = make_world(lagging=True)
    world.db.lag = 1.0
    mine, other = world.app.test_client(), world.app.test_client()
    image_id = make(mine)
    assert [each["id"] for each in mine.get("/images").get_json()["images"]] == [image_id]
    assert mine.get("/images").headers["Imagery-Source"] == "primary"
    world.clock.advance(0.5)
    assert other.get("/images").get_json()["images"] == []
    assert other.get("/images").headers["Imagery-Source"].startswith("replica")
