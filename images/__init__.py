"""The images of this project, put together without a Docker engine: `python -m images build`."""
