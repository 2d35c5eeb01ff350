"""People: a page for each person, out of a cache that may die.

The cache alone, at work in a small Flask application. `people` reads and writes rows, `web` has the routes::

    flask --app examples.people run
    REDIS_URL=redis://127.0.0.1:6379/0 flask --app examples.people run

Open ``/``, then a person, and reload: the page says where its text came from. Stop Redis meanwhile: nothing happens.
"""

from examples.people.web import create_app

__all__ = ["create_app"]
