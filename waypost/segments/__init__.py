"""Generated from protos/waypost/segments by `make gen`."""
