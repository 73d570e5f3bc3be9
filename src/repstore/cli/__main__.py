"""`python -m repstore.cli`: the same as the `repstore` command."""
from repstore.cli.app import main

if __name__ == "__main__":
    main()
