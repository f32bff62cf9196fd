"""Pretraining of ctxpeft-mini, the small language model the package ships: `python -m scripts.pretrain_mini --help`."""
