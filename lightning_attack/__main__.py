"""`python -m lightning_attack`, the same as the console script `lightning-attack`."""

from lightning_attack.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
