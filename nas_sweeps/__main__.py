"""``python -m nas_sweeps``: the command line where its script is not on the path."""

from nas_sweeps.cli import main

main()
