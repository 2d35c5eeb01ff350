"""Pages and assets that HTTP caches may keep, in Flask."""

from __future__ import annotations

import pytest
from flask import Flask, Response, render_template_string

from resilient.cache import Cache
from resilient.errors import ConfigurationError
from resilient.flask import Assets, Resilient, http_cached
from resilient.testing import FakeClock
from resilient.web.assets import collect


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def app(clock):
    app = Flask("shop")
    cache = Cache(namespace="shop", ttl=60, jitter=0, clock=clock)
    prices = {7: 100}

    @cache.lazy("price:{article}", stale_while_revalidate=30, stale_if_error=300)
    def price(article: int) -> int:
        return prices[article]

    @app.route("/prices/<int:article>", methods=["GET", "POST"])
    def show(article):
        found = price.lookup(article)
        return http_cached(f"{found.value} EUR", found, public=True, names_in="Cache-Tag")

    @app.get("/stream")
    def stream():
        return http_cached(Response(iter(["a", "b"])), price.lookup(7))

    @app.get("/gone")
    def gone():
        return http_cached(("gone", 410), price.lookup(7))

    app.prices, app.price = prices, price  # type: ignore[attr-defined]  # for the tests
    with cache:
        yield app


def test_a_page_is_sent_once_and_then_confirmed(app, clock):
    """A second request with the entity tag gets 304 and the times that are left; a changed value another page."""
    client = app.test_client()
    first = client.get("/prices/7")
    assert first.headers["Cache-Control"] == "public, max-age=60, stale-while-revalidate=30, stale-if-error=300"
    assert first.headers["Cache-Tag"] == "shop:price:7,shop:all:%7Bshop%7D"
    clock.advance(20)
    known = {"If-None-Match": first.headers["ETag"]}
    again = client.get("/prices/7", headers=known)
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert "max-age=40" in again.headers["Cache-Control"]
    app.prices[7] = 120
    app.price.invalidate(7)
    changed = client.get("/prices/7", headers=known)
    assert (changed.status_code, changed.text) == (200, "120 EUR")


@pytest.mark.parametrize(("method", "path"), [("POST", "/prices/7"), ("GET", "/stream"), ("GET", "/gone")])
def test_what_is_no_plain_page_is_left_alone(app, method, path):
    """An answer to a POST, a stream and an error are kept by nobody."""
    answer = app.test_client().open(path, method=method)
    assert "ETag" not in answer.headers
    assert "Cache-Control" not in answer.headers


# --------------------------------------------------------------------------------------------------------------- assets


def site(folder) -> Flask:
    app = Flask("site")
    Resilient(app, assets=Assets(folder))

    @app.get("/")
    def index():
        return render_template_string("{{ asset_url('app.css') }} {{ asset_url('app.js') }}")

    return app


def test_an_edited_asset_has_a_new_address_and_the_old_one_stays(tmp_path):
    """A deployment gives new addresses to what was edited; old pages go on, and no page mixes the two."""
    source, target = tmp_path / "static", tmp_path / "collected"
    source.mkdir()
    for name in ("app.css", "app.js"):
        (source / name).write_text("one")
    collect(source, target)
    old = site(target)
    page = old.test_client().get("/").text.split()

    (source / "app.css").write_text("two")
    collect(source, target)  # while the old process serves on
    new = site(target)
    next_page = new.test_client().get("/").text.split()

    assert old.test_client().get("/").text.split() == page  # a process agrees with itself
    assert page[0] != next_page[0]
    assert page[1] == next_page[1]
    for app in (old, new):  # either serves the pages of the other
        client = app.test_client()
        for address, text in ((page[0], "one"), (next_page[0], "two"), (page[1], "one")):
            with client.get(address) as answer:
                assert answer.text == text


def test_assets_are_kept_for_a_year_and_confirmed(tmp_path):
    """What is under a hashed name never changes, and says so; nothing else in the folder is served."""
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "app.css").write_text("one")
    collect(tmp_path / "static", tmp_path / "collected")
    (tmp_path / "collected" / "notes.txt").write_text("not collected")
    (tmp_path / "secret.0123456789ab.txt").write_text("outside")
    app = site(tmp_path / "collected")
    with app.test_request_context():
        address = app.extensions["resilient"].assets.url_for("app.css")
    client = app.test_client()
    with client.get(address) as first:
        assert first.text == "one"
    with client.get(address, headers={"If-None-Match": first.headers["ETag"]}) as again:
        assert again.status_code == 304
    assert {"public", "immutable", "max-age=31536000"} <= set(first.headers["Cache-Control"].split(", "))
    for path in ("manifest.json", "notes.txt", "app.css", "app.0123456789ab.css", "../secret.0123456789ab.txt"):
        assert client.get(f"/assets/{path}").status_code == 404
    with app.test_request_context(), pytest.raises(ConfigurationError, match=r"no asset 'app\.scss'"):
        app.extensions["resilient"].assets.url_for("app.scss")


def test_wrong_assets_are_refused(tmp_path):
    """A folder that was not collected, an address without slashes, and what is no Assets are told at the start."""
    with pytest.raises(ConfigurationError, match="not collected"):
        Assets(tmp_path)
    with pytest.raises(ConfigurationError, match="slash"):
        Assets(tmp_path, url="assets")
    with pytest.raises(ConfigurationError, match="Assets"):
        Resilient(assets="collected")
