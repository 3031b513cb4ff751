"""mDNS: apps announced and found on the local link."""
