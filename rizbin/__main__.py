"""`python -m rizbin`, and what torchrun starts."""

import sys

from rizbin.cli import main

sys.exit(main())
