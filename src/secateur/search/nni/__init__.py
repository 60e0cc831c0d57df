"""NNI's tuners in process, and its experiments with their manager; beside its pruners all that imports NNI."""
