"""Asks the hello app once: `python caller.py /greet/Ada`. Its address is HELLO_ADDR, or port 8080 here."""

import http.client
import os
import sys


def main() -> int:
    """Print the answer; 0 if it was one of success."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/greet/world"
    connection = http.client.HTTPConnection(os.environ.get("HELLO_ADDR", "localhost:8080"), timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().rstrip())
    connection.close()
    return 0 if answer.status < 400 else 1


if __name__ == "__main__":
    sys.exit(main())
