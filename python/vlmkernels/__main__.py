import sys

from vlmkernels.cli.main import main

sys.exit(main())
