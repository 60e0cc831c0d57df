"""What repairs a cut network without training: least squares for the layers that read cut channels, statistics for batch norms."""
