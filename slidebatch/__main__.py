"""`python -m slidebatch`: the same as the program `slidebatch`."""

from slidebatch.cli import main

if __name__ == "__main__":  # workers are spawned and import this module by another name
    main()
