"""`python -m dropout_trainer` is `dropout`."""

import sys

from dropout_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
