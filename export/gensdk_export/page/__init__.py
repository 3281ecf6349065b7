"""A static page that draws samples in the browser, with no server behind it."""
