"""Tasks: what is learned. One file a task; `TASKS` is the only place that knows them all."""
