"""Settings, commands, run folders, checkpoints, processes, devices, progress: no network, no image."""
