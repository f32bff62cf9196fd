"""The pictures of the design guide, measured on runs of `ctxpeft compare`."""
