"""Collected assets: names that tell their content, all the way down; nothing that was there goes."""

from __future__ import annotations

import os

import pytest

from resilient.cli import main
from resilient.errors import ConfigurationError
from resilient.web.assets import MANIFEST, Manifest, collect, is_hashed, prune


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "static"
    (folder / "css" / "parts").mkdir(parents=True)
    (folder / "img").mkdir()
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "img" / "logo.svg").write_text("<svg/>")
    (folder / "css" / "parts" / "base.css").write_text("body { background: url( '../../img/logo.svg?v=1#top' ) }")
    (folder / "css" / "app.css").write_text(
        '@import "parts/base.css";\n@import url(parts/base.css);\n/* url(gone.png) */\n'
        "a { background: url(data:image/png;base64,AA==), url(/absolute.png), url(https://cdn.example/x.png) }\n"
        "/*# sourceMappingURL=app.css.map */\n"
    )
    (folder / "app.js").write_text("go('url(never.png)')\n//# sourceMappingURL=app.js.map\n")
    (folder / "app.js.map").write_text("{}")
    return folder


def test_everything_is_copied_under_a_name_that_tells_its_content(source, tmp_path):
    """Each file but hidden ones has a copy with a hash in its name, and the manifest says which."""
    target = tmp_path / "collected"
    found = collect(source, target)
    assert sorted(found.names) == ["app.js", "app.js.map", "css/app.css", "css/parts/base.css", "img/logo.svg"]
    for name, hashed in Manifest.read(target).names.items():
        assert is_hashed(hashed)
        assert (target / hashed).is_file()
        assert hashed.split(".")[0] == name.split(".")[0]
    with pytest.raises(ConfigurationError, match=r"no asset 'app\.csss'"):
        found["app.csss"]


def test_references_are_renamed_all_the_way_down(source, tmp_path):
    """An edited picture gives new names to the style sheets that show it, and to those that import them."""
    target = tmp_path / "collected"
    before = collect(source, target)
    sheet = (target / before["css/app.css"]).read_text()
    base = before["css/parts/base.css"].removeprefix("css/")
    assert sheet.count(base) == 2
    assert "/* url(gone.png) */" in sheet
    for elsewhere in ("data:image/png;base64,AA==", "url(/absolute.png)", "https://cdn.example/x.png", "app.css.map"):
        assert elsewhere in sheet
    assert f"'../../{before['img/logo.svg']}?v=1#top'" in (target / before["css/parts/base.css"]).read_text()
    assert before["app.js.map"] in (target / before["app.js"]).read_text()
    assert "never.png" in (target / before["app.js"]).read_text()

    (source / "img" / "logo.svg").write_text("<svg>new</svg>")
    after = collect(source, target)
    changed = {name for name in before.names if before[name] != after[name]}
    assert changed == {"img/logo.svg", "css/parts/base.css", "css/app.css"}
    for hashed in before.names.values():
        assert (target / hashed).is_file()  # the pages of before go on


def test_a_reference_to_nothing_is_refused_and_nothing_is_told_of(source, tmp_path):
    """A style sheet that names a file that is not there, or itself by way of others, leaves the old manifest."""
    target = tmp_path / "collected"
    before = collect(source, target)
    (source / "css" / "bad.css").write_text("a { background: url(nothing.png) }")
    with pytest.raises(ConfigurationError, match=r"css/bad\.css refers to nothing\.png"):
        collect(source, target)
    (source / "css" / "bad.css").write_text('@import "worse.css";')
    (source / "css" / "worse.css").write_text('@import "bad.css";')
    with pytest.raises(ConfigurationError, match="circle"):
        collect(source, target)
    assert Manifest.read(target).names == before.names
    with pytest.raises(ConfigurationError, match="no folder"):
        collect(tmp_path / "nowhere", target)


def test_old_copies_go_when_they_are_told_to(source, tmp_path):
    """Only copies that no manifest names, and that are older than was said, are taken away."""
    target = tmp_path / "collected"
    before = collect(source, target)
    (source / "app.js").write_text("new()")
    collect(source, target)
    assert prune(target, 3600) == 0
    for name in before.names.values():
        os.utime(target / name, (1, 1))
    assert prune(target, 3600) == 1
    assert not (target / before["app.js"]).exists()
    assert (target / before["img/logo.svg"]).is_file()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2, "files": {}}'])
def test_what_is_no_manifest_is_refused(text, tmp_path):
    """A manifest that is not there, or not one, is told at the start."""
    with pytest.raises(ConfigurationError, match="not collected"):
        Manifest.read(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ConfigurationError, match=r"no manifest|another version"):
        Manifest.read(tmp_path)


def test_the_command_collects(source, tmp_path, capsys):
    """`resilient assets collect` copies, prunes, and says so."""
    target = tmp_path / "collected"
    assert main(["assets", "collect", str(source), str(target), "--prune-days", "30"]) == 0
    assert capsys.readouterr().out == f"5 assets in {target}, 0 former copies taken away\n"
    assert main(["assets", "collect", str(tmp_path / "nowhere"), str(target)]) == 2
