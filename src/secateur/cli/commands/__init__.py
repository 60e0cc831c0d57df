"""The commands. Each is a few lines; the work is in `secateur.pipelines`."""
