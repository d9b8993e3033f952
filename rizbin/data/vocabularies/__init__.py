"""The small vocabulary and the script that made it."""
