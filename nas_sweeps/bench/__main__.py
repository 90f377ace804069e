"""``python -m nas_sweeps.bench``."""

from nas_sweeps.bench.command import main

if __name__ == "__main__":  # children that measure memory import this module again
    main()
