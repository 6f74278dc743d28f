"""`python -m stillframe.sweep -m model=resnet18,plain_cnn optim.lr=1e-3,3e-4`: the whole DAG for each setting."""

import sys

from stillframe.sweeps.run import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as problem:
        sys.exit(f"sweep: {problem}")
