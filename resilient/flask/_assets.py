"""Assets with a hash in their names, as `resilient.web.assets` collects them."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Flask, Response, abort, send_from_directory, url_for

from resilient.errors import ConfigurationError
from resilient.web.assets import Manifest, is_hashed

__all__ = ["Assets"]

_YEAR = 365 * 86_400
_NAME = "resilient_assets"


class Assets:
    """Serves collected assets, which browsers may keep for a year: what is under a name never changes.

    The manifest is read once, so that all pages of a process agree; a deployment collects first and restarts then.
    Copies of former versions are served as long as they are in the folder.

    Args:
        folder: The folder that `resilient.web.assets.collect` has filled.
        url: What their addresses begin with.

    Raises:
        ConfigurationError: There is no manifest in the folder, or the address does not begin and end with a slash.

    Examples:
        ::

            assets = Assets("collected")
            Resilient(app, assets=assets)      # or assets.init_app(app)

            {{ asset_url("app.css") }}         in a template: /assets/app.3f1c9a0b7d52.css
    """

    def __init__(self, folder: str | Path, url: str = "/assets/") -> None:
        if not (url.startswith("/") and url.endswith("/")):
            raise ConfigurationError(f"url= begins and ends with a slash, unlike {url!r}")
        self._folder = Path(folder).resolve()
        self._url = url
        self.manifest = Manifest.read(self._folder)

    def init_app(self, app: Flask) -> None:
        """Serve them in an application, and give its templates ``asset_url``."""
        blueprint = Blueprint(_NAME, __name__)
        blueprint.add_url_rule(f"{self._url}<path:name>", "asset", self._serve)
        app.register_blueprint(blueprint)
        app.jinja_env.globals["asset_url"] = self.url_for

    def url_for(self, name: str) -> str:
        """The address of an asset, as it is now. Raises ConfigurationError where there is none of that name."""
        return url_for(f"{_NAME}.asset", name=self.manifest[name])

    def _serve(self, name: str) -> Response:
        if not is_hashed(name):
            abort(404)
        known = name.rpartition("/")[2]  # it tells the content
        response = send_from_directory(self._folder, name, max_age=_YEAR, etag=known)
        response.cache_control.public = True
        response.cache_control.immutable = True
        return response
