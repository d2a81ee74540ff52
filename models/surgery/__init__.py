"""Changes to a model by its declared structure: adapters, pruning, gates, proxies."""
