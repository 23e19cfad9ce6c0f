"""Feast's own serving API over Waypost's online store, for clients that speak it already.

`definitions` is what can be asked for, `loading` makes it with Feast's SDK outside of any request, `refresh` keeps it
current. `selection` and `entities` understand a request, `answering` reads and builds the response out of stored bytes,
`writing` takes pushes in. `grpc_handlers` and `http_routes` are the two doors to the same answers.
`type_checks` makes `import feast` take a quarter of its time; it acts here, before anything can import Feast.
"""

from server.feast.type_checks import defer_feasts_checks

defer_feasts_checks()
