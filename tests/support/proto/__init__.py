"""Messages of the gRPC app under test; `echo_pb2` is generated from `echo.proto` (see the command in that file)."""
