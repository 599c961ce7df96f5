"""`python -m ltx2_operator.cli`."""

import sys

from ltx2_operator.cli import main

sys.exit(main())
