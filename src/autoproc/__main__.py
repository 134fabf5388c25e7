import sys

try:
    from autoproc.command import main

    code = main()
except KeyboardInterrupt:
    sys.exit("autoproc: stopped")
sys.exit(code)
