"""How well a trained model uses a long context: perplexity, needles, tasks."""
