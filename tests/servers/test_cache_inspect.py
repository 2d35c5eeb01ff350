"""`resilient cache inspect` on a real server and a real Cluster."""

from __future__ import annotations

from typing import Any

import pytest

from resilient.cache import Cache
from resilient.cli import main


@pytest.mark.parametrize("kind", ["redis_server", "redis_cluster"])
def test_a_cache_on_a_server_is_told(kind: str, request: pytest.FixtureRequest, capsys: Any) -> None:
    """Its keys are counted on every node of a Cluster; a key's life is that of the server's clock too."""
    url = request.getfixturevalue(kind).url
    with Cache(url, namespace="inspected", ttl=60, connect_timeout=2.0, timeout=2.0) as cache:
        cache.set_many({f"k{number}": number for number in range(50)})
    asked = ["cache", "inspect", "--namespace", "inspected", url]
    assert main([*asked, "k7"]) == 0
    out = capsys.readouterr().out
    assert "value, fresh for" in out
    assert "the server keeps it for" in out
    assert main([*asked, "nothing"]) == 1
    assert "looked for in the namespace 'inspected'; --namespace names another" in capsys.readouterr().out
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "keys: 50\n" in out
    assert "hit ratio" in out
