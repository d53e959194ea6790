"""The pages for insiders, load balancers and people."""
