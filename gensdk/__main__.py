"""``python -m gensdk``."""

from gensdk.cli.main import main

if __name__ == "__main__":
    main()
