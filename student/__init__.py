"""labels -> model: the dataset, LoRA training, the merge, the served student."""
