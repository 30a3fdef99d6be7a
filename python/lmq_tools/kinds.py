"""Kinds of models that are judged: Hugging Face folders (causal, masked), safetensors (resnet, lenet), .h5 (keras)."""
KINDS = ("causal", "masked", "resnet", "lenet", "keras")
