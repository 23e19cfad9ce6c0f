"""The server: gRPC services, lifecycle, configuration and the command line."""
