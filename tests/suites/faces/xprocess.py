"""Stands in for pytest-xprocess, which their conftests import to start servers: ours are started by test_faces.py."""


class ProcessStarter:
    """Never started."""
