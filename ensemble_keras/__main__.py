"""`python -m ensemble_keras`: the command line."""

from ensemble_keras.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
