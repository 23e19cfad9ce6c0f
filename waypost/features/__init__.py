"""Generated from protos/waypost/features by `make gen`."""
