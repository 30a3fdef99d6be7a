"""lmq-calibrate and lmq-evaluate: statistics for `lmq quantize --importance`, and how far a quantized model is from its source."""
__version__ = "0.1.0"
