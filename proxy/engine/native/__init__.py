"""The native engine: Rust crates, and their side in Python."""
