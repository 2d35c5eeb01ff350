"""The generated files are what the generator writes, and the generator notices when they are not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator, loaded as a module."""
    pytest.importorskip("unasync", reason="the lint tools are not installed")
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("unasync_tool", ROOT / "tools" / "unasync.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sync_files_are_up_to_date(tool: ModuleType) -> None:
    """Every twin is what the generator would write now."""
    assert tool.main(["--check"]) == 0


def test_a_stale_a_missing_and_a_leftover_twin_are_found_and_mended(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check fails and names the file; a run without --check mends it."""
    source = tmp_path / "resilient" / "room" / "_async" / "thing.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        '"""Doc."""\n\n\nclass AsyncThing:\n    """Use ``await asyncio.sleep``.\n\n'
        '    >>> asyncio.run(AsyncThing().go())\n    1\n    """\n\n'
        "    async def go(self) -> int:\n        async with self.aopen() as it:\n            return await it.acall()\n"
    )
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    made = tmp_path / "resilient" / "room" / "_sync" / "thing.py"
    assert tool.main(["--check"]) == 1
    assert "stale: resilient/room/_sync/thing.py" in capsys.readouterr().out
    assert tool.main([]) == 0
    text = made.read_text()
    assert text.startswith("# Generated from resilient/room/_async/thing.py")
    assert "class Thing:" in text
    assert ">>> Thing().go()" in text
    assert "return it.call()" in text
    assert "async" not in text.split("\n", 1)[1].replace("_async", "").replace("asyncio.sleep", "")
    assert tool.main(["--check"]) == 0
    made.write_text(text + "# edited\n")
    leftover = made.with_name("gone.py")
    leftover.write_text("")
    assert tool.main(["--check"]) == 1
    assert tool.main([]) == 0
    assert not leftover.exists()
    assert made.read_text() == text
