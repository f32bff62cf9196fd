"""Variants in the table of HF PEFT's method comparison: MetaMathQA to GSM8K, as huggingface/peft measures it."""
