"""`python main.py predict`, from a checkout that is not installed; see README.md."""

import sys

from lightning_attack.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
