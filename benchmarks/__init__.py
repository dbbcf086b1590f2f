"""Figures beside a peer, measured in one run: `make bench NAME=engine`."""
