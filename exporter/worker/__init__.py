"""What one worker process keeps."""
