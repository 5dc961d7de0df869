"""Other tools on the same work. Each is set up in its own virtual environment below `.peers/`."""
