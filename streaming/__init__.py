"""The materializer: from the log of events to fresh features, online and offline.

Pure parts (windows, entity states, segment evaluation) are separate from the parts that talk to the log and the
store, so that the stream, the backfill and the tests compute every value with the same code.
"""
