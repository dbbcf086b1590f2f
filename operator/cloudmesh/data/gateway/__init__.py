"""The door to one directory: REST, and what keeps the directory going behind it."""
