"""Generated from protos/waypost/events by `make gen`."""
