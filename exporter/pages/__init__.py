"""What insiders, balancers and people ask a service."""
