"""One folder a provider; which one serves an account is in `registry`."""
