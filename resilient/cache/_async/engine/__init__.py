"""The work behind the face of a cache: reading, loading and writing over one guarded store."""
