"""What a user does, one file a job: a settings class and a function of it."""
