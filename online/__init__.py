"""The online store: Feast's Redis layout to the byte, one conditional write per entity, batched reads with statuses.

`keys` and `values` are the codec, `write` and `read` the two directions, `store` the connection. Nothing here
imports Feast.
"""
