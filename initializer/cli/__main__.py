"""`python -m phasebus.initializer.cli`: the command line where its script is not on the PATH."""

from phasebus.initializer.cli import main

main()
