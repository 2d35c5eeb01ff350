# Generated from resilient/cache/_async/engine/__init__.py by tools/unasync.py: do not edit.
"""The work behind the face of a cache: reading, loading and writing over one guarded store."""
