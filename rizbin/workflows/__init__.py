"""Workflows: what a user does, one file a job."""
