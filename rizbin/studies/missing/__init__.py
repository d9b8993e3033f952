"""The missing-object problem, measured: prompts, ways to draw them, judges, numbers, the page."""
