"""`python -m proxy.reference`: regenerates the reference page."""

import sys

from proxy.reference.page import main

if __name__ == "__main__":
    sys.exit(main())
