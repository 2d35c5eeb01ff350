"""The drivers of the cache, written once; see tools/unasync.py."""
