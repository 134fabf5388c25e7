import sys

from autoproc.command import main

sys.exit(main())
