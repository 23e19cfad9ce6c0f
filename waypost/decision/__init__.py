"""Generated from protos/waypost/decision by `make gen`."""
