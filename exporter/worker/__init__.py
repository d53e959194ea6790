"""The state of one worker process."""
