"""Version 1 of the messages that cross a socket, generated from the .proto files beside it by `make protos`."""
