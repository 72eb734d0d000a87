"""Measuring on a board that is reached over SSH or adb (``edgekit.remote.bench.bench_on``)."""
