"""`python -m forecast`: the command line."""

import os
import sys

# Python puts the current folder first, where a torch.py may lie; our own code alone may come from there.
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if not sys.flags.safe_path and sys.path[0] != _OWN:
    del sys.path[0]

from forecast.cli.main import main  # noqa: E402

main()
