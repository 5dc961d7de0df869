"""`python -m jobmon` is the command `jobmon`."""

from jobmon.cli.main import main

if __name__ == "__main__":
    main(prog_name="jobmon")
