"""`python -m lightning_attack.cli`, the same as `python -m lightning_attack`."""

from lightning_attack.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
