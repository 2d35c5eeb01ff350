# Generated from resilient/contrib/_async/__init__.py by tools/unasync.py: do not edit.
"""What the faces of other libraries share, written once, as async; see tools/unasync.py."""
