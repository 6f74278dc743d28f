"""All measurements of docs/benchmarks.md: speed (about 25 minutes), pruning (half an hour), scores (over an hour).

The times are those of two cores.
"""

import subprocess
import sys

for program in ("bench.speed", "bench.pruning", "bench.scores"):
    print(f"bench: python -m {program}", flush=True)
    code = subprocess.run([sys.executable, "-m", program], check=False).returncode
    if code:
        sys.exit(code)
