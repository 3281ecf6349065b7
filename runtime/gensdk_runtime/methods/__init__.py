"""What a generator does beyond `sample()`: encode, invert, reconstruct, interpolate, translate, dream."""
