"""Generated from protos/waypost/features/v1 by `make gen`."""
