"""Text as tokens: vocabularies as untrusted input, and the lines of text files."""
