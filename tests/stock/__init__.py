"""gRPC programs as their makers' libraries have them, called through two sidecars."""
