"""Data sets: what makes them (``sources``), and how the other steps see them (``datasets``)."""
