"""The floor: settings, run folders, checkpoints, processes, progress, report pages. No network, no image."""
