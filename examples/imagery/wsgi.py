"""What a web server loads: ``gunicorn examples.imagery.wsgi:app``."""

from __future__ import annotations

import logging

from examples.imagery.services import Services
from examples.imagery.settings import Settings
from examples.imagery.web import create_app

logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
logging.getLogger("resilient").setLevel(logging.INFO)
app = create_app(Services.connect(Settings.from_environment()))
