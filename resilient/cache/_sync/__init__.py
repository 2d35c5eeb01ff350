# Generated from resilient/cache/_async/__init__.py by tools/unasync.py: do not edit.
"""The drivers of the cache, written once; see tools/unasync.py."""
