"""What a bundle says about itself, typed and strict."""
