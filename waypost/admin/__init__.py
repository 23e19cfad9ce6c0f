"""Generated from protos/waypost/admin by `make gen`."""
