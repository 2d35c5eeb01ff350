"""Run as a script: a Redis in Python on the given port of 127.0.0.1."""

from __future__ import annotations

import sys
from typing import Any

from fakeredis import TcpFakeServer
from redis.exceptions import ResponseError


def keeps_connections(handler: Any) -> type[Any]:
    """The handler of connections, made to go on after an error reply as a Redis does: fakeredis' own hangs up."""

    class Handler(handler):  # type: ignore[misc]  # the class is known only at run time: fakeredis hides its name
        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def reply() -> Any:
                try:
                    return read()
                except ResponseError as error:
                    return error

            self.current_client.read_response = reply

    return Handler


def main(port: int) -> None:
    """Serve until killed."""
    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    server.RequestHandlerClass = keeps_connections(server.RequestHandlerClass)
    server.daemon_threads = True
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]))
