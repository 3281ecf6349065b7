"""Networks, and the layers that they are made of, that two or more families share."""
