"""The program of the worker processes that `test_queue.py` starts and kills. It holds no test itself.

Arguments: mode, URL of the queue, URL of the database, and a file that is made when a handler has begun. Another one,
whose name ends in ``-up``, is made when the worker begins to receive.
"""

import os
import sys
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from resilient.queue import Consumer, Outbox, Queue, SqlStore


def main(mode: str, queue_url: str, database: str, mark: str) -> None:
    """Run one worker."""
    queue, maker = Queue(queue_url), sessionmaker(sa.create_engine(database))

    def handle(n: int, session: Session) -> None:
        session.execute(sa.text("INSERT INTO effects (n) VALUES (:n)"), {"n": n})
        Path(mark).touch()
        if mode == "hang":
            time.sleep(60)

    def steady(n: int, session: Session) -> None:
        Path(mark).touch()
        session.execute(sa.text("INSERT INTO effects (n) VALUES (:n)"), {"n": n})
        time.sleep(0.01)  # so that a kill often comes between the effect and its commit

    def held(n: int, session: Session) -> None:
        Path(f"{mark}-runs-{n}").touch()
        while not Path(mark).exists():  # the test makes it
            time.sleep(0.02)
        session.execute(sa.text("INSERT INTO effects (n) VALUES (:n)"), {"n": n})

    def die(*_: object) -> None:
        os._exit(9)

    store = SqlStore(maker)
    Path(f"{mark}-up").touch()
    if mode == "hang":
        Consumer(queue, handle, idempotency=store, visibility=1, wait=1).run()
    elif mode == "steady":
        Consumer(queue, steady, idempotency=store, visibility=2, wait=1).run()
    elif mode == "die-before-delete":
        queue.delete_many = die  # type: ignore[method-assign, assignment]  # stands for a death at that moment
        Consumer(queue, handle, idempotency=store, visibility=1, wait=1).run()
    elif mode == "held":
        # Without a record: it would be written first, and SQLite lets only one handler write at a time.
        Consumer(queue, held, session=maker, concurrency=2, prefetch=10, wait=1, stop_timeout=90).run()
    else:
        outbox = Outbox({"jobs": queue}, lease=1)
        if mode == "relay-die-after-claim":
            queue.send_many = die  # type: ignore[method-assign, assignment]
        else:
            outbox._mark = die  # type: ignore[method-assign, assignment]
        outbox.relay(maker)


if __name__ == "__main__":
    main(*sys.argv[1:])
