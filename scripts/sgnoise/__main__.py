"""``python -m sgnoise`` is the command ``sgnoise``."""

import sys

from sgnoise.cli import main

if __name__ == "__main__":
    sys.exit(main())
