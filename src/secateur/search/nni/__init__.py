"""The one door to NNI: its tuners in process, and its experiments with their manager."""
