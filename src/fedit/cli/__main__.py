"""`python -m fedit.cli` is the command `fedit`."""

from fedit.cli import main

if __name__ == "__main__":
    main()
