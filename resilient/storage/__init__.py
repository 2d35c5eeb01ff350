"""Where data rests: replicas, shards and objects."""
