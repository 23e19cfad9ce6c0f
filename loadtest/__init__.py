"""Locust users that behave like customers of the example shop, and the measurements in `loadtest.bench`.

Nothing here knows more of Waypost than the client stubs: what these users can do, any client can.
"""
