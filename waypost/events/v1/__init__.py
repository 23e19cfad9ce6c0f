"""Generated from protos/waypost/events/v1 by `make gen`."""
