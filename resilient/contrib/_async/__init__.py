"""What the faces of other libraries share, written once, as async; see tools/unasync.py."""
