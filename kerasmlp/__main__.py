import sys

from kerasmlp.cli import main

sys.exit(main())
