"""Other phase lists, and launchers of other projects, on the same bus: training, datasets, HTTP serving, Ray Serve LLM."""
