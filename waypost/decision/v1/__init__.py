"""Generated from protos/waypost/decision/v1 by `make gen`."""
