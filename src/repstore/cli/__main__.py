"""`python -m repstore.cli`: the same as the `repstore` command."""
from repstore.cli import main

if __name__ == "__main__":
    main()
