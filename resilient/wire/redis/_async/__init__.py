"""Channels, written once; see tools/unasync.py."""
