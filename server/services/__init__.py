"""gRPC servicers: thin adapters between protobuf and the domain."""
