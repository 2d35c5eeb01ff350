# Generated from resilient/cache/_async/face/__init__.py by tools/unasync.py: do not edit.
"""The face of a cache, by what it is used for: side by side over one base, and put together in `Cache`."""
