"""All measurements of docs/benchmarks.md: speed first (about 12 minutes), then scores (over an hour on two cores)."""

import subprocess
import sys

for program in ("bench.speed", "bench.scores"):
    print(f"bench: python -m {program}", flush=True)
    code = subprocess.run([sys.executable, "-m", program], check=False).returncode
    if code:
        sys.exit(code)
