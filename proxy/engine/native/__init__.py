"""The native engine: Rust crates, and the Python side of them."""
