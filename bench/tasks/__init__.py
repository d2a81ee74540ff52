"""The tasks, one file each: see `bench.contracts.task.Task`."""
