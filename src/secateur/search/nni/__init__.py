"""The only package that imports NNI: its tuners in process, and its experiments with their manager."""
