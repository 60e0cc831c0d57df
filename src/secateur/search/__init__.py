"""Ask/tell samplers, baselines, warm starts, and what makes a front."""
