"""Generated from protos/waypost by `make gen`."""
