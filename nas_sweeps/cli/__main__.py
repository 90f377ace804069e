"""``python -m nas_sweeps.cli``."""

from nas_sweeps.cli import main

main()
