"""How not to do it: the loop of a worker that acknowledges first and works then. Run only to show what it loses."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from examples.imagery.images import Job
from resilient.queue import Message, Queue

__all__ = ["run"]


def run(queue: Queue, handle: Callable[[Job, Any], None], session: Callable[[], Any]) -> None:
    """Receive, delete, work: until SIGTERM. A crash in the midst of the work loses the message."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())

    def work(message: Message) -> None:
        with session() as opened:
            handle(msgspec.json.decode(message.body, type=Job), opened)
            opened.commit()

    with ThreadPoolExecutor(4) as pool:
        while not ended.is_set():
            messages = queue.receive(4, wait=1)
            if messages:
                queue.delete_many([message.receipt for message in messages])
                for job in [pool.submit(work, message) for message in messages]:
                    job.exception()
