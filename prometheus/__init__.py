"""/metrics → decisions: the rules and configurations, and the commands that run and check them."""
