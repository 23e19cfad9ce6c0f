"""Generated from protos/waypost/admin/v1 by `make gen`."""
