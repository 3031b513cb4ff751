"""The native engine: Rust crates, and the adapter that is their side in Python."""
