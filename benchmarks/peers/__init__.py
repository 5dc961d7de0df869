"""Other tools on the same work: each is set up in a virtual environment of its own below `.peers/`."""
