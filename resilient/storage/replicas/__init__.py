"""Read replicas: one database of which the copies answer reads, and a reader always sees what it wrote.

>>> from resilient.storage.replicas import ReplicaSet
>>> db = ReplicaSet("sqlite://")
>>> Session = db.sessionmaker()
>>> db.close()
"""

from resilient.wire import sql as _sql  # noqa: F401 - first, so that a missing SQLAlchemy is told as a missing extra

# isort: split
from resilient.storage.replicas._events import NodeChanged, ReadMoved, ReadRouted
from resilient.storage.replicas._node import NodeStatus
from resilient.storage.replicas._router import Consistency
from resilient.storage.replicas._session import RoutingSession
from resilient.storage.replicas._set import ReplicaSet

__all__ = ["Consistency", "NodeChanged", "NodeStatus", "ReadMoved", "ReadRouted", "ReplicaSet", "RoutingSession"]
