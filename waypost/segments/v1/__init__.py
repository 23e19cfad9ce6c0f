"""Generated from protos/waypost/segments/v1 by `make gen`."""
