"""A Hugging Face model: what is known of it before it loads, and the loaded model, observed."""
