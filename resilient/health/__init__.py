"""Deep health checks that a load balancer can trust.

    >>> from resilient.health import Health, checks
    >>> health = Health()
    >>> health.add("breakfast", lambda: True, critical=False)
    >>> health.ready().to_json()
    '{"status":"pass"}'

Every report ends inside its deadline, whatever hangs; probes that come together cost one; a fault that all instances
share warns instead of emptying the balancer's pool; nothing but one word leaves without leave.
"""

from resilient.health import checks
from resilient.health._core import Check, Result, Status
from resilient.health._events import CheckChanged, CheckWorsened, Draining, FaultHere, FaultOver
from resilient.health._health import Health
from resilient.health._peers import MemoryBoard, PeerBoard, Peers
from resilient.health._report import CheckReport, Report

__all__ = [
    "Check",
    "CheckChanged",
    "CheckReport",
    "CheckWorsened",
    "Draining",
    "FaultHere",
    "FaultOver",
    "Health",
    "MemoryBoard",
    "PeerBoard",
    "Peers",
    "Report",
    "Result",
    "Status",
    "checks",
]
