"""Complete runs: which settings we stand behind, and the function that runs them."""
