"""Which trajectories settle, orbit or drift: measurements of windows, verdicts, reasons."""
