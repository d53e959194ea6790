"""More than one machine: replicas behind a proxy, and Kubernetes."""
