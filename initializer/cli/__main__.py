"""`python -m phasebus.initializer.cli`: the command line, if the script `phasebus` is not on the PATH."""

from phasebus.initializer.cli import main

main()
