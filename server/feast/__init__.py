"""Feast's own serving API over Waypost's online store, for clients that speak it already.

`definitions` is what can be asked for, `loading` makes it with Feast's SDK outside of any request, `refresh` keeps it
current. `selection` and `entities` understand a request, `answering` reads and builds the response out of stored bytes,
`writing` takes pushes in. `grpc_handlers` and `http_routes` are the two doors to the same answers.
"""
