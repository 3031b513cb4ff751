"""`python -m proxy.reference`: writes the reference page anew."""

import sys

from proxy.reference.page import main

if __name__ == "__main__":
    sys.exit(main())
