"""`python -m theorysim` is `theorysim`."""

from theorysim.cli import main

if __name__ == "__main__":  # a process that the command line starts imports this file, too
    main()
