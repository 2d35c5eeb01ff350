# Generated from resilient/wire/redis/_async/__init__.py by tools/unasync.py: do not edit.
"""Channels, written once; see tools/unasync.py."""
