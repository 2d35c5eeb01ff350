"""The face of a cache, by what it is used for: side by side over one base, and put together in `AsyncCache`."""
