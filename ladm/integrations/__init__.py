"""Steps of ladm for other people's pipelines: datatrove, Ray Data, NeMo Curator."""
