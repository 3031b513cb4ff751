"""Protocol code that belongs to no engine: heads, frames, HTTP/1.1 and HTTP/2 ends, TLS contexts, a small client."""
