"""S3 and SQS: moto's server in a process of its own, and clients that are ready to use."""

from __future__ import annotations

import http.client
import threading
from typing import Any

from resilient.errors import Unavailable
from resilient.testing.servers.server import HOST, Server, missing_modules, module_command

__all__ = ["MotoServer"]


class MotoServer(Server):
    """S3 and SQS on loopback, in memory: after a kill or a restart it is empty.

    It accepts any signature, so it proves nothing about who may do what.

    Args:
        port: The port to listen on; by default a free one.
        start_timeout: Seconds within which it must answer after a start.

    Examples:
        >>> from resilient.testing.servers import MotoServer
        >>> if MotoServer.missing() is None:
        ...     with MotoServer() as moto:
        ...         queue = moto.client("sqs").create_queue(QueueName="orders")["QueueUrl"]
        ...         assert queue.startswith(moto.url)
    """

    region = "eu-west-1"

    def __init__(self, *, port: int | None = None, start_timeout: float = 30.0) -> None:
        super().__init__(port=port, start_timeout=start_timeout)
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._extra_clients: list[Any] = []
        self._client_lock = threading.Lock()

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return missing_modules(["moto", "boto3", "werkzeug", "flask_cors"], "testing")

    @property
    def env(self) -> dict[str, str]:
        """The environment in which boto3 finds this server by itself; its credentials mean nothing."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client for ``s3`` or ``sqs``, signing with SigV4.

        Without options it is made once and shared: it may be used from any thread, and `stop` closes it.

        Args:
            service: What boto3 calls it.
            **options: Fields of `botocore.config.Config` that shall differ, such as ``read_timeout``.
        """
        with self._client_lock:
            if not options and service in self._clients:
                return self._clients[service]
            client = self._make_client(service, options)
            if options:
                self._extra_clients.append(client)
            else:
                self._clients[service] = client
            return client

    def _make_client(self, service: str, options: dict[str, Any]) -> Any:
        import boto3
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.Session("test", "test", region_name=self.region)
        defaults: dict[str, Any] = {
            "connect_timeout": 2.0,
            "read_timeout": 30.0,  # longer than the longest poll
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": 50,
        }
        if service == "s3":
            defaults |= {"signature_version": "s3v4", "s3": {"addressing_style": "path"}}
        return self._session.client(service, endpoint_url=self.url, config=Config(**{**defaults, **options}))

    def reset(self) -> None:
        """Drop all buckets and queues."""
        self._ask("POST", "/moto-api/reset")

    def heal(self) -> None:
        """Make it run, answer, and be empty, whatever was done to it."""
        self.thaw()
        self.start()
        self.reset()

    def stop(self) -> None:
        """End it, close the clients it gave out, and remove its folder."""
        super().stop()
        with self._client_lock:
            for client in [*self._clients.values(), *self._extra_clients]:
                client.close()
            self._clients.clear()
            self._extra_clients.clear()

    def _argv(self) -> list[str]:
        return module_command("resilient.testing.servers._moto", str(self.port))

    def _probe(self) -> object:
        return self._ask("GET", "/moto-api/data.json", timeout=1.0)

    def _ask(self, method: str, path: str, timeout: float = 5.0) -> bytes:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.name} did not answer {method} {path}") from error
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise Unavailable(f"{self.name} answered {method} {path} with {answer.status}")
        return content
